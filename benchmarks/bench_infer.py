"""Measure how fast the 7B at full size answers one frame, and batches: in 4 bits and merged, beside stock `generate`.

    python benchmarks/bench_infer.py --like Qwen/Qwen2-VL-7B-Instruct --out outputs/bench_infer

The weights, the adapter's too, are random and the 1920x1080 frames are drawn, so memory, speed and the equality of
computations are the model's own, and the answers mean nothing. Every arm runs in a process of its own, one after
another; run again, it keeps the arms that are finished. It needs one GPU of 40 GB and 40 GB of disk.
"""

import argparse
import json
from typing import Any

from benchmarks.gpu_arms import check_gpu, measure_arms, prepare
from data_prep.errors import run_script
from data_prep.files import from_root

ARMS = ("stock", "small", "small_capped", "start", "large", "equality")
RESULTS = "bench_infer.json"


def main(argv: list[str]) -> int:
    """Make base, adapter and frames, measure each arm, write bench_infer.json, print a table, one line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--like",
        default="Qwen/Qwen2-VL-7B-Instruct",
        help="a Hub id or a folder with config.json and the tokenizer's files (default: %(default)s)",
    )
    parser.add_argument("--out", default="outputs/bench_infer", help="folder to write (default: %(default)s)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="what to measure (default: everything)")
    args = parser.parse_args(argv)
    check_gpu()
    out = from_root(args.out)
    prepare(out, args.like)
    print(as_table(measure_arms(out / RESULTS, "benchmarks/infer_arms.py", args.arms)))
    return 0


def as_table(results: dict[str, Any]) -> str:
    """Lay out what was measured as text, one line of JSON last."""
    arms = results["arms"]
    lines = [f"{'':<36}{'tokens':>7}{'batch':>6}{'p50 ms':>9}{'p95 ms':>9}{'frames/s':>10}"]
    for name in ("stock", "small", "large"):
        for row in arms.get(name, {}).get("times", []):
            lines.append(
                f"{name + ', ' + row['what']:<36}{row['tokens']:>7}{row['batch']:>6}{row['p50_ms']:>9.1f}"
                f"{row['p95_ms']:>9.1f}{1000 * row['batch'] / row['p50_ms']:>10.1f}"
            )
    for name in ("stock", "small", "large"):
        if name in arms:
            memory = arms[name]
            lines.append(
                f"{name}: peak allocated {memory['peak_allocated_gib']:.2f} GiB, reserved "
                f"{memory['peak_reserved_gib']:.2f} GiB; loaded in {memory['loading_seconds']:.1f} s"
            )
    if "small_capped" in arms:
        capped = arms["small_capped"]
        lines.append(f"infer.py within {capped['cap_gib']} GiB: peak allocated {capped['peak_allocated_gib']:.2f} GiB")
    for name, seconds in arms.get("start", {}).items():
        lines.append(f"infer.py from start to end, {name}: {seconds:.1f} s")
    for name, difference in arms.get("equality", {}).items():
        lines.append(f"P(UNSAFE), {name}: {json.dumps(difference)}")
    return "\n".join([*lines, json.dumps(results)])


if __name__ == "__main__":
    run_script(main)
