"""Measure how fast the 7B at full size answers one frame, and batches: in 4 bits and merged, beside stock `generate`.

    python benchmarks/bench_infer.py --like Qwen/Qwen2-VL-7B-Instruct --out outputs/bench_infer

The weights, the adapter's too, are random and the 1920x1080 frames are drawn, so memory, speed and the equality of
computations are the model's own, and the answers mean nothing. Every arm runs in a process of its own, one after
another; run again, it keeps the arms that are finished. It needs one GPU of 40 GB and 40 GB of disk.
"""

import json
from typing import Any

from benchmarks.measuring.arms import run_benchmark
from data_prep.console import run_script

ARMS = ("stock", "small", "small_capped", "start", "large", "equality")


def main(argv: list[str]) -> int:
    """Make base, adapter and frames, measure each arm, write bench_infer.json, print a table, one line of JSON last."""
    print(as_table(run_benchmark(argv, __doc__, "bench_infer", "benchmarks/arms/infer.py", ARMS)))
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
