"""Measure an export: how long it takes and in what memory, and whether other engines answer by it as we do.

    python benchmarks/bench_export.py
    python benchmarks/bench_export.py --like Qwen/Qwen2-VL-7B-Instruct --size 2b --frames 4 --out outputs/bench_export
    python benchmarks/bench_export.py --like Qwen/Qwen2-VL-7B-Instruct --size small --llama-cpp FOLDER \
--llama-server FILE

The first form takes what `make demo` leaves. The others make a random base like a published one, at its own size, the
2B's or a few layers', with a random adapter: that says what an export costs and whether answers agree, never how good
they are. --another-transformers names a folder that pip installed another version into (pip install --target). Of
llama.cpp the source folder is needed, whose converter runs, and its llama-server.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.made.random_qwen2vl import companion_folder
from benchmarks.measuring.demo_frames import frames_of_test
from benchmarks.measuring.exports import (
    Timed,
    asked_by_infer,
    asked_by_readme,
    differing_layout,
    export_timed,
    served_by_llama,
)
from benchmarks.measuring.machine import machine
from data_prep.console import run_script
from data_prep.errors import InputError
from data_prep.files import from_root, write_json
from recipes.adapter.folder import find_adapter
from recipes.layers.sizes import TOKEN_SIDE

MAX_PIXELS = 480 * TOKEN_SIDE**2


def main(argv: list[str]) -> int:
    """Measure what is asked for, and print a table; --out keeps report and models."""
    args = parse_arguments(argv)
    out = from_root(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.like:
        adapter, frames = made(args, out)
    else:
        adapter, frames = from_root(args.adapter), frames_of_test(from_root(args.data), args.frames)
    export = out / "export"
    timed = [export_timed(adapter, out / f"export-{number}" if number else export) for number in range(args.repeats)]
    answers = {"infer, adapter": asked_by_infer(adapter, frames), "infer, export": asked_by_infer(export, frames)}
    for name, site in {"transformers": None, "another transformers": args.another_transformers}.items():
        if name == "transformers" or site:
            version, found = asked_by_readme(export, frames, site and from_root(site))
            answers[f"transformers {version}"] = found
    if args.llama_cpp:
        answers["llama.cpp"] = served_by_llama(
            export, frames, from_root(args.llama_cpp), from_root(args.llama_server), out / "gguf", MAX_PIXELS
        )
    base = find_adapter(adapter).base.folder
    report = {
        **machine(),
        "base": args.like or "the demo's",
        "size": args.size,
        "exports": [asdict(each) for each in timed],
        "differing_from_base": differing_layout(base, export),
        "frames": len(frames),
        "p_unsafe": answers,
        "largest_difference": largest_differences(answers, find_adapter(export).record.threshold),
    }
    write_json(out / "bench_export.json", report)
    print(as_table(report, timed))
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="outputs/demo", help="folder of a finished run (default: %(default)s)")
    parser.add_argument("--data", default="data/demo", help="folder with test.jsonl (default: %(default)s)")
    parser.add_argument("--like", help="make a random base like this one instead, a Hub id or a folder")
    parser.add_argument("--size", choices=("own", "2b", "small"), default="own", help="of that base")
    parser.add_argument("--frames", type=int, default=64, help="frames to answer (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="exports to time (default: %(default)s)")
    parser.add_argument("--another-transformers", metavar="FOLDER", help="where pip installed another version")
    parser.add_argument("--llama-cpp", metavar="FOLDER", help="llama.cpp's source")
    parser.add_argument("--llama-server", metavar="FILE", help="its server, built")
    parser.add_argument("--out", default="outputs/bench_export", help="folder to write to (default: %(default)s)")
    args = parser.parse_args(argv)
    if bool(args.llama_cpp) != bool(args.llama_server):
        raise InputError("--llama-cpp and --llama-server go together")
    if args.frames < 1 or args.repeats < 1:
        raise InputError("--frames and --repeats must be 1 or more")
    return args


def made(args: argparse.Namespace, out: Path) -> tuple[Path, list[Path]]:
    """Return a random adapter on a random base, both made unless they stand in `out`, and drawn frames."""
    from benchmarks.made import random_qwen2vl
    from benchmarks.made.random_adapter import write_random_adapter
    from benchmarks.made.small_qwen2vl import drawn_frames, write_small_qwen2vl

    base, adapter = out / "base", out / "run"
    if not base.exists():
        if args.size == "small":
            write_small_qwen2vl(companion_folder(args.like), base, max_pixels=MAX_PIXELS)
        else:
            random_qwen2vl.main(["--like", args.like, "--size", args.size, "--out", str(base)])
    if not adapter.exists():
        dtype = "float32" if args.size == "small" else "bfloat16"
        write_random_adapter(adapter, base, max_pixels=MAX_PIXELS, dtype=dtype)
    (out / "frames").mkdir(exist_ok=True)
    frames = [out / "frames" / f"{number:03}.png" for number in range(args.frames)]
    for file, image in zip(frames, drawn_frames(args.frames), strict=True):
        image.save(file)
    return adapter, frames


def largest_differences(answers: dict[str, list[float]], threshold: float) -> dict[str, dict[str, Any]]:
    """Return how far each way's P(UNSAFE) is from infer's on the export at most, and how many labels are others."""
    reference = answers["infer, export"]
    return {
        name: {
            "p_unsafe": max(abs(p - other) for p, other in zip(found, reference, strict=True)),
            "labels": sum((p >= threshold) != (other >= threshold) for p, other in zip(found, reference, strict=True)),
        }
        for name, found in answers.items()
    }


def as_table(report: dict[str, Any], timed: list[Timed]) -> str:
    """Lay out what was measured as text."""
    lines = [
        f"export: {each.seconds:.1f} s, {each.peak_gib:.2f} GiB of memory, of which {each.own_gib:.2f} of no file"
        for each in timed
    ]
    lines.append(f"tensors and shards other than the base's: {', '.join(report['differing_from_base']) or 'none'}")
    lines.append(f"{'against infer on the export':<30}{'largest difference of P':>24}{'other labels':>14}")
    for name, found in report["largest_difference"].items():
        lines.append(f"{name:<30}{found['p_unsafe']:>24.2e}{found['labels']:>14}")
    spread = report["p_unsafe"]["infer, export"]
    lines.append(f"{report['frames']} frames, P from {min(spread):.3f} to {max(spread):.3f}")
    return "\n".join([*lines, json.dumps(report["largest_difference"])])


if __name__ == "__main__":
    run_script(main)
