"""What bench_plan.py measured, laid out as text."""

import json
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any


def as_table(results: dict[str, Any]) -> str:
    """Lay out what was measured as text, one line of JSON last."""
    lines: list[str] = []
    for name, figures in results["arms"].items():
        if "kernels" in figures:
            lines += kernel_lines(name, figures)
        elif "answers" in figures:
            lines += answer_lines(name, figures)
        elif "trained" in figures:
            lines += run_lines(name, figures)
        elif "now" in figures:
            lines += whole_lines(figures)
        else:
            lines += planned_lines(name, figures)
    return "\n".join([*lines, json.dumps(results)])


def kernel_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Lay out kernels beside what they stand for, in milliseconds of a pass of the whole model."""
    yield f"{name}: a matrix product at {figures['matmul_tflops']:.0f} TFLOP/s; ms of a pass: a library's, the kernel's"
    for row in figures["kernels"]:
        equal = "equal" if row["equal"] else f"{row['relative_error']:.1e} apart"
        yield f"  {row['what']:<22}{row['library_pass_ms']:>9.2f}{row['kernel_pass_ms']:>9.2f}  {equal}"
    library, kernel = (
        sum(row[f"{which}_pass_ms"] for row in figures["kernels"] if row["what"].startswith("unpack"))
        for which in ("library", "kernel")
    )
    yield f"  {'all unpacked':<22}{library:>9.2f}{kernel:>9.2f}"


def answer_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Lay out how long one frame takes to be answered."""
    gib, rate = figures["peak_allocated_gib"], figures["matmul_tflops"]
    yield f"{name}: allocated {gib:.2f} GiB; a matrix product at {rate:.0f} TFLOP/s at the end"
    for row in figures["answers"]:
        yield f"  {row['what']}, {row['tokens']} tokens: {row['p50_ms']:.0f} ms, p95 {row['p95_ms']:.0f}"


def planned_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Lay out a planned run: seconds a frame and the peak of training, by the plan and as measured."""
    least, most = figures["seconds_range"]
    seconds, predicted = figures["seconds_a_frame"], figures["predicted_seconds"]
    gib, predicted_gib = figures["peak_allocated_gib"], figures["predicted_gib"]
    reserved, filling, loading = (figures[f"{what}_gib"] for what in ("peak_reserved", "filling_peak", "loading_peak"))
    yield f"{name}: {'; '.join(figures['said'][:2])}"
    yield (
        f"  {seconds:.3f} s a frame ({least:.3f} to {most:.3f}), "
        f"predicted {predicted:.3f} ({predicted / seconds:.2f}); "
        f"allocated {gib:.2f} GiB, predicted {predicted_gib:.2f} ({predicted_gib / gib:.2f}); "
        f"reserved {reserved:.2f}, filling {filling:.2f}, loading {loading:.2f}"
    )


def run_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Lay out a whole run and its evaluation: what each allocated and reserved of the card at its peak."""
    trained, evaluated = figures["trained"], figures["evaluated"]
    yield f"{name}: {', '.join(f'{each} {value}' for each, value in trained['plan'].items())}"
    for what, number, part in (("updates", trained["updates"], trained), ("frames", evaluated["frames"], evaluated)):
        yield (
            f"  {number} {what}, {part['seconds']:.0f} s: allocated {part['peak_allocated_gib']:.2f} GiB, "
            f"reserved {part['peak_reserved_gib']:.2f}"
        )


def whole_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Lay out the whole card's speed, and how it compares with the earlier version's."""
    rates = {name: [run["frames_per_second"] for run in runs] for name, runs in figures.items() if runs}
    for name, each in rates.items():
        yield f"whole card, {name}: {median(each):.2f} frames/s ({min(each):.2f} to {max(each):.2f})"
    if "before" in rates:
        yield f"  times the earlier version's: {median(rates['now']) / median(rates['before']):.3f}"
    yield from planned_lines("planned_whole", figures["now"][-1])
