"""Measure how fast the demo's small model answers a frame on a CPU, beside stock `generate` of the same answer.

    python benchmarks/bench_infer_cpu.py [--adapter outputs/demo] [--data data/demo]

It wants what `make demo` leaves. Both ways take the same frames in turns, from JPEG bytes to the label, in one process;
infer.py is timed as a command.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.measuring.demo_frames import frames_of_test
from benchmarks.measuring.machine import processor, with_project
from data_prep.console import run_script
from data_prep.files import PROJECT_ROOT, from_root
from data_prep.media.images import read_image
from recipes.adapter.folder import Adapter, find_adapter
from recipes.report.contents import versions

FRAMES, COMMANDS = 64, 3


def main(argv: list[str]) -> int:
    """Measure, print a table, one line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="outputs/demo", help="folder of a finished run (default: %(default)s)")
    parser.add_argument("--data", default="data/demo", help="folder with test.jsonl (default: %(default)s)")
    args = parser.parse_args(argv)
    adapter, data = find_adapter(from_root(args.adapter)), from_root(args.data)
    adapter.record.check_adapter(adapter.folder)
    frames = frames_of_test(data, FRAMES, least=FRAMES)
    with contextlib.redirect_stdout(sys.stderr):
        commands = [seconds_of_command(adapter.folder, frames[0]) for _ in range(COMMANDS)]
        times = measure(adapter, [frame.read_bytes() for frame in frames])
    figures = {
        **processor(),
        **versions(),
        "command_seconds": commands,
        **times,
    }
    print(as_table(figures))
    return 0


def seconds_of_command(adapter: Path, frame: Path) -> float:
    """Return how long infer.py takes for one frame, from start to end."""
    command = [sys.executable, "recipes/infer.py", "--adapter", str(adapter), "--image", str(frame)]
    begin = time.perf_counter()
    subprocess.run(command, cwd=PROJECT_ROOT, env=with_project(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def measure(adapter: Adapter, encoded: list[bytes]) -> dict[str, Any]:
    """Answer every frame both ways, in turns."""
    from recipes.answering.adapted_model import load_for_batches
    from recipes.model.device import use_all_cores

    use_all_cores()
    adapted = load_for_batches(adapter)
    generate = stock(adapter)

    def ours(content: bytes) -> str:
        return adapter.record.label_of(adapted.p_unsafe([read_image(content)])[0])

    ways: dict[str, Callable[[bytes], str]] = {"ours": ours, "generate": generate}
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[str]] = {name: [] for name in ways}
    for content in encoded:
        for name, way in ways.items():
            begin = time.perf_counter()
            answers[name].append(way(content))
            milliseconds[name].append(1000 * (time.perf_counter() - begin))
    figures: dict[str, Any] = {
        name: {"first_ms": each[0], "p50_ms": median(each[1:]), "p95_ms": quantiles(each[1:], n=20)[-1]}
        for name, each in milliseconds.items()
    }
    different = sum(mine != stock for mine, stock in zip(*answers.values(), strict=True))
    return {**figures, "frames": len(encoded), "other_answers": different}


def stock(adapter: Adapter) -> Callable[[bytes], str]:
    """Return what answers by transformers' and PEFT's own modules, generating up to the end of turn."""
    import torch
    from peft import PeftModel
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    from benchmarks.measuring.held_generation import question
    from recipes.model.quantized import compute_exactly_on_cpu, quantization_config

    folder, record = adapter.folder, adapter.record
    dtype = getattr(torch, record.dtype)
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        adapter.base.folder, dtype=dtype, quantization_config=quantization_config(dtype), device_map={"": "cpu"}
    )
    compute_exactly_on_cpu(model)
    adapted = PeftModel.from_pretrained(model, folder).eval()
    processor = AutoProcessor.from_pretrained(folder, max_pixels=record.max_pixels)
    text = question(processor, record.prompt)

    @torch.no_grad()
    def generate(content: bytes) -> str:
        inputs = processor(text=[text], images=[read_image(content)], return_tensors="pt")
        ids = adapted.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        answer: str = processor.decode(ids, skip_special_tokens=True)
        return answer

    return generate


def as_table(figures: dict[str, Any]) -> str:
    """Lay out what was measured as text, one line of JSON last."""
    lines = [f"{'bytes to label, ms':<20}{'first':>9}{'p50':>9}{'p95':>9}"]
    for name in ("ours", "generate"):
        row = figures[name]
        lines.append(f"{name:<20}{row['first_ms']:>9.1f}{row['p50_ms']:>9.1f}{row['p95_ms']:>9.1f}")
    lines.append(f"generate / ours, p50: {figures['generate']['p50_ms'] / figures['ours']['p50_ms']:.1f}")
    lines.append(f"{figures['other_answers']} of {figures['frames']} frames answered otherwise")
    lines.append(f"infer.py from start to end: {median(figures['command_seconds']):.1f} s")
    return "\n".join([*lines, json.dumps(figures)])


if __name__ == "__main__":
    run_script(main)
