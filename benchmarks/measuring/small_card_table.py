"""What bench_small_card.py measured, laid out as text."""

import json
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

HEAD = (
    f"{'':<26}{'frames':>7}{'recomputed':>11}{'s/frame':>9}{'':^16}{'A1000, projected':>17}{'allocated GiB':>15}"
    f"{'reserved GiB':>14}{'loading GiB':>13}"
)
STREAMED_AND_PLAIN = {"speed_computed_streamed": "speed_computed", "speed_kept_streamed": "speed_kept"}


def as_table(results: dict[str, Any]) -> str:
    """Lay out what was measured as text, one line of JSON last."""
    arms = results["arms"]
    lines = [HEAD, *speed_lines(arms), *ratio_lines(arms)]
    for name, figures in arms.items():
        if name.startswith(("capped", "answered")):
            lines.append(cap_line(name, figures))
        elif name.startswith("whole_card"):
            lines += whole_lines(figures)
        elif name == "exactness":
            lines += exactness_lines(figures)
    return "\n".join([*lines, json.dumps(results)])


def speed_lines(arms: Mapping[str, Any]) -> Iterator[str]:
    """Lay out seconds a frame and peaks; a projection only where a part of the card stood for a small one."""
    for name, figures in arms.items():
        if "rows" in figures:
            first, last = figures["matmul_tflops"]
            yield f"{name}: a matrix product at {first:.0f} TFLOP/s, {last:.0f} at the end"
        for row in figures.get("rows", []):
            least, most = row["seconds_range"]
            expected = "-" if figures["whole_card"] else f"{row['a1000_projected']:.2f}"
            yield (
                f"{name:<26}{row['micro_batch']:>7}{row['recomputed']:>11}{row['seconds_a_frame']:>9.3f}"
                f"{f'({least:.3f} to {most:.3f})':>18}{expected:>15}{row['peak_allocated_gib']:>15.2f}"
                f"{row['peak_reserved_gib']:>14.2f}{row['loading_peak_allocated_gib']:>13.2f}"
            )


def ratio_lines(arms: Mapping[str, Any]) -> Iterator[str]:
    """Say how long streaming takes by what it takes without, where the rest is the same."""
    for streamed, plain in STREAMED_AND_PLAIN.items():
        if not {streamed, plain} <= set(arms):
            continue
        without = {case(row): row["seconds_a_frame"] for row in arms[plain]["rows"]}
        for row in arms[streamed]["rows"]:
            if case(row) in without:
                times = row["seconds_a_frame"] / without[case(row)]
                yield f"{streamed}, {row['micro_batch']} frames: {times:.3f} times as long as without streaming"


def case(row: Mapping[str, Any]) -> tuple[int, str]:
    """Return what a row was measured at: frames at once, and recomputed layers."""
    return row["micro_batch"], row["recomputed"]


def cap_line(name: str, figures: Mapping[str, Any]) -> str:
    """Lay out a run under a cap, or infer.py's."""
    steps = f"{figures['steps']} updates of {figures['micro_batch']}" if "steps" in figures else str(figures["frames"])
    return (
        f"{name}: {steps} frames within {figures['cap_gib']} GiB, peak allocated {figures['peak_allocated_gib']:.2f}, "
        f"reserved {figures['peak_reserved_gib']:.2f} GiB"
    )


def whole_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Lay out a recipe's speed on the whole card, and how it compares with the earlier version's."""
    rates = {name: [run["frames_per_second"] for run in figures[name]] for name in ("now", "before") if name in figures}
    for name, each in rates.items():
        yield (
            f"whole card, {figures['recipe']} recipe at {figures['frames']} frames, {name}: {median(each):.2f} frames/s"
            f" ({min(each):.2f} to {max(each):.2f})"
        )
    if "before" in rates:
        yield f"  times the earlier version's: {median(rates['now']) / median(rates['before']):.3f}"


def exactness_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Lay out which plain pairs are equal, and which streamed passes equal plain ones."""
    yield f"attention by {', '.join(figures['attention_kernels'])}"
    for name, found in figures["pairs"].items():
        yield f"plain pairs at 4 frames, {name}: {pair_words(found)}"
    for row in figures["ways"]:
        bits, usual = row["deterministic"], row["usual"]
        exact = "equal to the bit" if bits["equal"] else f"{bits['gradients']:.1e} apart"
        yield (
            f"{row['model']}, {row['frames']} frames, {row['recomputed']} recomputed: {exact} by deterministic kernels,"
            f" {usual['gradients']:.1e} by the usual ones, plain pairs {pair_words(row['plain_pairs'])}"
        )


def pair_words(found: Mapping[str, Any]) -> str:
    """Say how many pairs are equal and how far the others are apart, or why there are none."""
    if "refused" in found:
        return f"not computed ({found['refused']})"
    return f"{found['equal']} of {found['pairs']} equal, at most {found['largest']:.1e} apart"
