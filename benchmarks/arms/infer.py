"""The arms of bench_infer.py, each measured in a process of its own: `python benchmarks/arms/infer.py ARM --out DIR`.

What an arm returns is printed as the last line, in JSON.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring.answer_times import (
    COMPARED,
    Bench,
    answers,
    as_graph,
    batches,
    open_bench,
    preprocessing,
    timed,
)
from benchmarks.measuring.arms import measure_arm, run
from benchmarks.measuring.card import allow_no_more_than, peaks
from benchmarks.measuring.equality import equality, stock_model
from benchmarks.measuring.held_generation import question
from benchmarks.measuring.said import stdout_lines
from data_prep.labels import LABELS
from data_prep.media.images import read_image
from data_prep.rows.jsonl import read_rows
from recipes import infer
from recipes.model.compiling import compile_layers

CAP_GIB = 5.2
GENERATED = 15  # calls of stock `generate`, which take long


def memory(loading_seconds: float) -> dict[str, float]:
    """Return the peaks since the process began."""
    return {"loading_seconds": loading_seconds, **peaks()}


def small(bench: Bench) -> dict[str, Any]:
    """Measure the 4-bit model with the adapter on it, embedding and LM head on the host."""
    adapted, seconds = bench.load()
    times = [*answers(bench, adapted, "eager")]
    figures = memory(seconds)
    times += answers(bench, as_graph(adapted), "graph")
    times += batches(bench, adapted, "eager")
    times += preprocessing(bench, adapted)
    return {**figures, "times": times}


def large(bench: Bench) -> dict[str, Any]:
    """Measure the adapter merged into weights in bf16: as it is, as a graph, with compiled layers, and both."""
    adapted, seconds = bench.load(merge=True)
    times = [*answers(bench, adapted, "eager"), *answers(bench, as_graph(adapted), "graph")]
    figures = memory(seconds)
    times += batches(bench, adapted, "eager")
    compile_layers(adapted.model)
    times += [*answers(bench, as_graph(adapted), "compiled graph"), *batches(bench, adapted, "compiled")]
    return {**figures, "times": times}


def stock(bench: Bench) -> dict[str, Any]:
    """Measure `generate` of the answer, three tokens with the end of turn, and of its first token alone."""
    begin = time.perf_counter()
    model, processor = stock_model(bench)
    seconds = time.perf_counter() - begin
    text = question(processor, bench.adapter.record.prompt)

    def inputs(number: int) -> Any:
        image = read_image(bench.encoded[number % COMPARED])
        return processor(text=[text], images=[image], return_tensors="pt").to("cuda")

    fixed = inputs(0)
    tokens = int((fixed["input_ids"] == model.config.image_token_id).sum())

    def generate(batch: Any, new: int) -> Any:
        with torch.no_grad():
            return model.generate(**batch, min_new_tokens=new, max_new_tokens=new, do_sample=False)

    times = [
        timed("generate", tokens, 1, lambda _: generate(fixed, 3), GENERATED),
        timed("generate, one token", tokens, 1, lambda _: generate(fixed, 1), GENERATED),
        timed("generate, bytes to answer", tokens, 1, lambda number: generate(inputs(number), 3), GENERATED),
        timed("preprocessing alone", tokens, 1, inputs, GENERATED),
    ]
    return {**memory(seconds), "times": times}


def small_capped(bench: Bench) -> dict[str, Any]:
    """Have infer.py answer eight frames with no more of the card than a cap; it fails where it can't."""
    allow_no_more_than(CAP_GIB)
    with stdout_lines() as lines:
        status = infer.main(["--adapter", str(bench.adapter.folder), "--image", *frame_files(bench, 8)])
    if status or len(lines) != 8 or not set(lines) <= set(LABELS):
        raise RuntimeError(f"infer.py ended with {status} and said {lines}")
    return {"cap_gib": CAP_GIB, **memory(0.0)}


def frame_files(bench: Bench, count: int) -> list[str]:
    """Return the paths of the first frames."""
    rows = read_rows(bench.out / "data" / "train.jsonl")
    return [str(bench.out / "data" / row.image) for row in rows[:count]]


def start(bench: Bench) -> dict[str, float]:
    """Time infer.py as a command, from start to end, one frame; the second time the disk is warm."""
    seconds = {}
    for name in ("first time", "again"):
        begin = time.perf_counter()
        run(["recipes/infer.py", "--adapter", str(bench.adapter.folder), "--image", *frame_files(bench, 1)])
        seconds[name] = time.perf_counter() - begin
    return seconds


ARMS: dict[str, Callable[[Bench], Any]] = {
    "stock": stock,
    "small": small,
    "small_capped": small_capped,
    "start": start,
    "large": large,
    "equality": equality,
}


def on_bench(arm: Callable[[Bench], Any]) -> Callable[[Path], Any]:
    """Return an arm that opens the benchmark's folder itself."""
    return lambda out: arm(open_bench(out))


if __name__ == "__main__":
    sys.exit(measure_arm(sys.argv[1:], __doc__, {name: on_bench(arm) for name, arm in ARMS.items()}))
