"""The arms of bench_infer.py, each measured in a process of its own: `python benchmarks/arms/infer.py ARM --out DIR`.

What an arm returns is printed as the last line, in JSON.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from benchmarks.made.random_adapter import write_random_adapter
from benchmarks.measuring.arms import run
from benchmarks.measuring.held_generation import generate_held, question
from data_prep.files import from_root
from data_prep.labels import LABELS, UNSAFE
from data_prep.media.images import read_image
from data_prep.rows.jsonl import read_rows
from recipes import infer
from recipes.adapter.folder import Adapter, find_adapter
from recipes.answering.adapted_model import AdaptedModel, load_adapted
from recipes.answering.scoring import Scorer, label_token_ids
from recipes.batches.collator import VisionCollator
from recipes.metrics.threshold import PLAIN_THRESHOLD, label_of
from recipes.model.device import compile_layers
from recipes.model.quantized import quantization_config

GIB = 2**30
MAX_PIXELS = {480: 401408, 252: 200704}  # by the visual tokens that a 1920x1080 frame gets
CAP_GIB = 5.2
WARM_UP, CALLS, BATCHES = 6, 40, 6
BATCH = 32
COMPARED = 64  # frames
NOISE = 2e-2  # of P(UNSAFE) in bf16: a frame closer to the threshold may be answered either way


@dataclass(frozen=True)
class Bench:
    """What all arms work with."""

    out: Path
    adapter: Adapter
    encoded: list[bytes]

    def load(self, **how: bool) -> tuple[AdaptedModel, float]:
        """Load the adapter on its base; return it with the seconds that took."""
        begin = time.perf_counter()
        adapted = load_adapted(self.adapter, **how)
        torch.cuda.synchronize()
        return adapted, time.perf_counter() - begin


def main(argv: list[str]) -> int:
    """Measure one arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=sorted(ARMS))
    parser.add_argument("--out", required=True, help="the benchmark's folder, with base/ and data/")
    args = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with contextlib.redirect_stdout(sys.stderr):
        figures = ARMS[args.arm](open_bench(from_root(args.out)))
    print(json.dumps(figures))
    return 0


def open_bench(out: Path) -> Bench:
    """Read the frames; write the random adapter, unless it is there."""
    adapter = out / "adapter"
    if not adapter.exists():
        write_random_adapter(adapter, out / "base", max_pixels=MAX_PIXELS[480])
    rows = read_rows(out / "data" / "train.jsonl")
    encoded = [(out / "data" / row.image).read_bytes() for row in rows[: COMPARED + BATCH]]
    return Bench(out, find_adapter(adapter), encoded)


def timed(what: str, tokens: int, batch: int, call: Callable[[int], Any], calls: int = CALLS) -> dict[str, Any]:
    """Time single calls, the device waited for after each; `call` gets a number that counts up."""
    seconds = []
    for number in range(WARM_UP + calls):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call(number)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    counted = seconds[WARM_UP:]
    return {
        "what": what,
        "tokens": tokens,
        "batch": batch,
        "p50_ms": 1000 * median(counted),
        "p95_ms": 1000 * quantiles(counted, n=20)[-1],
        "first_ms": 1000 * seconds[0],
    }


def memory(loading_seconds: float) -> dict[str, float]:
    """Return the peaks since the process began."""
    return {
        "loading_seconds": loading_seconds,
        "peak_allocated_gib": torch.cuda.max_memory_allocated() / GIB,
        "peak_reserved_gib": torch.cuda.max_memory_reserved() / GIB,
    }


def with_limit(adapted: AdaptedModel, max_pixels: int) -> AdaptedModel:
    """Return the same model asked about frames of another size."""

    def limited(collator: VisionCollator) -> VisionCollator:
        return VisionCollator(
            collator.processor, max_pixels, max_side=collator.max_side, dtype=collator.dtype, device=collator.device
        )

    return replace(adapted, collator=limited(adapted.collator), card_collator=limited(adapted.card_collator))


def rows_of(bench: Bench, frames: range) -> list[dict[str, Any]]:
    """Return rows of the frames with those numbers, as the data set gives them."""
    return [{"image": {"bytes": bench.encoded[number]}, "prompt": bench.adapter.record.prompt} for number in frames]


def pinned(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch in page-locked memory, as a loader leaves it."""
    return {name: tensor.pin_memory() for name, tensor in batch.items()}


def scoring(adapted: AdaptedModel, batch: dict[str, torch.Tensor]) -> Callable[[int], Any]:
    """Return a call that scores the same batch again, whatever its number."""
    return lambda _: adapted.scorer.on_device(batch)


def answers(bench: Bench, adapted: AdaptedModel, what: str) -> Iterator[dict[str, Any]]:
    """Time one frame, the model alone and from JPEG bytes to the label, at both sizes."""
    for tokens, max_pixels in MAX_PIXELS.items():
        limited = with_limit(adapted, max_pixels)
        batch = pinned(limited.collator.prompts(rows_of(bench, range(1))))
        yield timed(f"{what}, model alone", tokens, 1, scoring(adapted, batch))

        def answer(number: int, limited: AdaptedModel = limited) -> str:
            image = read_image(bench.encoded[number % COMPARED])
            return label_of(limited.p_unsafe([image])[0], bench.adapter.record.threshold)

        yield timed(f"{what}, bytes to label", tokens, 1, answer)


def batches(bench: Bench, adapted: AdaptedModel, what: str) -> Iterator[dict[str, Any]]:
    """Time batches at both sizes, the model alone."""
    for tokens, max_pixels in MAX_PIXELS.items():
        batch = pinned(with_limit(adapted, max_pixels).collator.prompts(rows_of(bench, range(BATCH))))
        yield timed(f"{what}, model alone", tokens, BATCH, scoring(adapted, batch), BATCHES)


def as_graph(adapted: AdaptedModel) -> AdaptedModel:
    """Return the same model with its answers replayed."""
    scorer = Scorer(adapted.model, label_token_ids(adapted.collator), cuda_graphs=True)
    return replace(adapted, scorer=scorer)


def small(bench: Bench) -> dict[str, Any]:
    """Measure the 4-bit model with the adapter on it, embedding and LM head on the host."""
    adapted, seconds = bench.load()
    times = [*answers(bench, adapted, "eager")]
    figures = memory(seconds)
    times += answers(bench, as_graph(adapted), "graph")
    times += batches(bench, adapted, "eager")
    times += preprocessing(bench, adapted)
    return {**figures, "times": times}


def preprocessing(bench: Bench, adapted: AdaptedModel) -> Iterator[dict[str, Any]]:
    """Time what comes before the model: decoding, and from bytes to a batch on the CPU and on the card."""
    prompt = bench.adapter.record.prompt

    def image(number: int) -> Any:
        return read_image(bench.encoded[number % COMPARED])

    def batch_by(collator: VisionCollator) -> Callable[[int], Any]:
        return lambda number: collator.prompts([{"image": image(number), "prompt": prompt}])

    yield timed("decoding", 480, 1, image)
    yield timed("bytes to batch on the CPU", 480, 1, batch_by(adapted.collator))
    yield timed("bytes to batch on the card", 480, 1, batch_by(adapted.card_collator))


def large(bench: Bench) -> dict[str, Any]:
    """Measure the adapter merged into weights in bf16: as it is, as a graph, with compiled layers, and both."""
    adapted, seconds = bench.load(merge=True)
    times = [*answers(bench, adapted, "eager"), *answers(bench, as_graph(adapted), "graph")]
    figures = memory(seconds)
    times += batches(bench, adapted, "eager")
    compile_layers(adapted.model)
    times += [*answers(bench, as_graph(adapted), "compiled graph"), *batches(bench, adapted, "compiled")]
    return {**figures, "times": times}


def stock_model(bench: Bench, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, Any]:
    """Return transformers' and PEFT's own modules on the same 4-bit weights, and the processor."""
    from peft import PeftModel
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(
        bench.out / "base",
        dtype=dtype,
        quantization_config=quantization_config(dtype),
        device_map={"": 0},
    )
    adapted = PeftModel.from_pretrained(model, bench.adapter.folder).eval()
    return adapted, AutoProcessor.from_pretrained(bench.adapter.folder, max_pixels=bench.adapter.record.max_pixels)


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
        timed("generate", tokens, 1, lambda _: generate(fixed, 3), 15),
        timed("generate, one token", tokens, 1, lambda _: generate(fixed, 1), 15),
        timed("generate, bytes to answer", tokens, 1, lambda number: generate(inputs(number), 3), 15),
        timed("preprocessing alone", tokens, 1, inputs, 15),
    ]
    return {**memory(seconds), "times": times}


def small_capped(bench: Bench) -> dict[str, Any]:
    """Have infer.py answer eight frames with no more of the card than a cap; it fails where it can't."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(CAP_GIB * GIB / total)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = infer.main(["--adapter", str(bench.adapter.folder), "--image", *frame_files(bench, 8)])
    lines = said.getvalue().splitlines()
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


def plain_scores(bench: Bench, dtype: torch.dtype) -> torch.Tensor:
    """Return P(UNSAFE) of the compared frames by transformers' and PEFT's own forward."""
    model, processor = stock_model(bench, dtype)
    processor.tokenizer.padding_side = "left"
    collator = VisionCollator(processor, bench.adapter.record.max_pixels, dtype=dtype)
    ids = label_token_ids(collator)

    def plain(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            logits = model(**{name: tensor.cuda() for name, tensor in batch.items()}).logits[:, -1, ids]
        return logits.float().softmax(-1)[:, LABELS.index(UNSAFE)]

    return scores(bench, collator, plain, 1)


def generated_labels(bench: Bench) -> list[str]:
    """Return what stock `generate` in bf16 answers the compared frames when held to the two answers."""
    model, processor = stock_model(bench)
    processor.tokenizer.padding_side = "left"
    text = question(processor, bench.adapter.record.prompt)
    answers = VisionCollator(processor, bench.adapter.record.max_pixels).answer_ids
    labels = []
    for first in range(0, COMPARED, 8):
        images = [read_image(encoded) for encoded in bench.encoded[first : first + 8]]
        inputs = processor(text=[text] * len(images), images=images, padding=True, return_tensors="pt").to("cuda")
        labels += generate_held(model, inputs, answers, end_id=processor.tokenizer.eos_token_id)
    return labels


def equality(bench: Bench) -> dict[str, Any]:
    """Return how far each way's P(UNSAFE) of 64 frames is from the plain forward in fp32; plain bf16 stands beside.

    Labels are compared with those that `generate` gives.
    """
    expected = plain_scores(bench, torch.float32)
    torch.cuda.empty_cache()
    labels = generated_labels(bench)
    torch.cuda.empty_cache()
    found: dict[str, Any] = {
        "plain, fp32": {"from": float(expected.min()), "to": float(expected.max())},
        "generated": {label: labels.count(label) for label in LABELS},
        "plain, bf16": difference(plain_scores(bench, torch.bfloat16), expected, labels),
    }
    torch.cuda.empty_cache()
    for merge in (False, True):
        adapted, _ = bench.load(merge=merge)
        name = "merged" if merge else "4-bit"

        def compare(
            way: str, scorer: Scorer, size: int, collator: VisionCollator = adapted.collator, name: str = name
        ) -> None:
            found[f"{name}, {way}"] = difference(scores(bench, collator, scorer, size), expected, labels)

        for size in (1, 2, 4, 8, 16, 32, 64):
            compare(f"batches of {size}", adapted.scorer, size)
        compare("graph", as_graph(adapted).scorer, 1)
        compare("graph, frames shrunk on the card", as_graph(adapted).scorer, 1, adapted.card_collator)
        if merge:
            compile_layers(adapted.model)
            compare("compiled graph", as_graph(adapted).scorer, 1)
        del adapted, compare
        torch.cuda.empty_cache()
    return found


def scores(
    bench: Bench, collator: VisionCollator, score: Callable[[dict[str, torch.Tensor]], Any], size: int
) -> torch.Tensor:
    """Return P(UNSAFE) of the compared frames, in batches of `size`."""
    starts = range(0, COMPARED, size)
    batches = (collator.prompts(rows_of(bench, range(first, first + size))) for first in starts)
    return torch.cat([torch.as_tensor(score(batch)).cpu() for batch in batches])


def difference(found: torch.Tensor, expected: torch.Tensor, generated: list[str]) -> dict[str, float]:
    """Return the largest difference of P, and in how many frames the label differs at the plain threshold.

    `other_labels` counts against `expected`, `unlike_generate` against the generated labels; in the latter, frames
    within NOISE of the threshold don't count, and `too_close` says how many those are.
    """
    unsafe = torch.tensor([label == UNSAFE for label in generated])
    close = (found - PLAIN_THRESHOLD).abs() <= NOISE
    return {
        "max": float((found - expected).abs().max()),
        "median": float((found - expected).abs().median()),
        "other_labels": int(((found >= PLAIN_THRESHOLD) != (expected >= PLAIN_THRESHOLD)).sum()),
        "unlike_generate": int((((found >= PLAIN_THRESHOLD) != unsafe) & ~close).sum()),
        "too_close": int(close.sum()),
    }


ARMS: dict[str, Callable[[Bench], Any]] = {
    "stock": stock,
    "small": small,
    "small_capped": small_capped,
    "start": start,
    "large": large,
    "equality": equality,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
