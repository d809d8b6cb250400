"""Measure training of the 7B at full size: memory and speed of each recipe, beside TRL's own set-up on the same card.

    python benchmarks/bench_train.py --like Qwen/Qwen2-VL-7B-Instruct --out outputs/bench_train

The weights are random and the 1920x1080 frames are drawn, so memory, speed and the equality of computations are the
model's own, and accuracy means nothing. Every arm runs in a process of its own, one after another; run again, it keeps
the arms that are finished. It needs one GPU of 80 GB, 16 CPU cores for the loading of frames, and 40 GB of disk.
"""

import json
from typing import Any

from benchmarks.measuring.arms import run_benchmark
from data_prep.console import run_script

ARMS = ("exactness", "8gb", "8gb_capped", "6gb", "6gb_capped", "80gb", "stock")


def main(argv: list[str]) -> int:
    """Make base and frames, measure each arm, write bench_train.json and print a table, one line of JSON last."""
    print(as_table(run_benchmark(argv, __doc__, "bench_train", "benchmarks/arms/train.py", ARMS)))
    return 0


def as_table(results: dict[str, Any]) -> str:
    """Lay out what was measured as text, one line of JSON last."""
    arms = results["arms"]
    lines = [f"{'':<34}{'batch':>6}{'frames/s':>10}{'allocated GiB':>15}{'reserved GiB':>14}{'loading GiB':>13}"]
    for name in ("stock", "8gb", "6gb"):
        lines += [speed_line("TRL's own" if name == "stock" else name, figures) for figures in arms.get(name, [])]
    large = arms.get("80gb", {})
    for name in ("computed", "computed_fixed_batch", "computed_1", "computed_1_graph", "cached", "cached_1_graph"):
        if name in large:
            lines.append(speed_line(f"80gb, {name.replace('_', ' ')}", large[name]))
    for name in ("8gb_capped", "6gb_capped"):
        if name in arms:
            lines.append(budget_line(name, arms[name]))
    if large:
        lines += large_lines(large, arms.get("stock", []))
    for name, errors in arms.get("exactness", {}).items():
        lines.append(
            f"gradients, {name}: {errors['to_fp32']['gradients']:.1e} from fp32, "
            f"{errors['to_plain_bf16']['gradients']:.1e} from the plain path in bf16"
        )
    return "\n".join([*lines, json.dumps(results)])


def speed_line(name: str, figures: dict[str, Any]) -> str:
    """Lay out one arm's speed and memory."""

    def gib(figure: str, width: int) -> str:
        return f"{figures[figure]:>{width}.2f}" if figures.get(figure) else f"{'-':>{width}}"

    return (
        f"{name:<34}{figures['micro_batch']:>6}{figures['frames_per_second']:>10.2f}"
        + gib("peak_allocated_gib", 15)
        + gib("peak_reserved_gib", 14)
        + gib("loading_peak_allocated_gib", 13)
    )


def budget_line(name: str, figures: dict[str, Any]) -> str:
    """Lay out a run under a cap."""
    return (
        f"{name}: {figures['steps']} steps of {figures['micro_batch']} frames within {figures['cap_gib']} GiB, "
        f"start to adapter, peak allocated {figures['peak_allocated_gib']:.2f} GiB"
    )


def large_lines(large: dict[str, Any], stock: list[dict[str, Any]]) -> list[str]:
    """Lay out how the large card's recipe compares: with a matrix product, a batch that never changes, TRL's own."""
    computed, fixed = large["computed"], large["computed_fixed_batch"]
    idle = 1 - computed["frames_per_second"] / fixed["frames_per_second"]
    lines = [
        f"matmul {large['matmul_tflops']:.0f} TFLOP/s; executed {computed['share_of_matmul']:.0%} of it, "
        f"{large['cached']['share_of_matmul']:.0%} with kept features",
        f"waiting for frames costs {max(idle, 0):.1%} of a step",
    ]
    rates = {figures["micro_batch"]: figures["frames_per_second"] for figures in stock}
    if rates:
        lines.append(
            f"times TRL's own: {computed['frames_per_second'] / rates[16]:.1f} at 16 frames, "
            f"{large['computed_1_graph']['frames_per_second'] / rates[1]:.1f} at 1, as a graph"
        )
    return lines


if __name__ == "__main__":
    run_script(main)
