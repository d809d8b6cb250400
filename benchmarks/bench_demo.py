"""Give the demo's exact figures, seed by seed: both row weightings, and a control that learns from shuffled labels.

    python benchmarks/bench_demo.py --out outputs/bench_demo --seeds 0 1 2

It wants what `make demo` leaves: the data folder and the data set pushed from it. Each run is trained and evaluated by
the project's own commands, as a user would, and all of them on the true test split. The control is the recipe on the
same frames with the training clips' labels dealt out anew at random: what it scores is what the job gives where there
is nothing to learn. Run again, it keeps the runs that are finished.
"""

import os
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.measuring.demo_runs import (
    ARMS,
    HF_HOME,
    SHUFFLED,
    UNWEIGHTED,
    WEIGHTED,
    finish_run,
    open_demo,
    seeds_arguments,
)
from benchmarks.measuring.machine import machine
from data_prep.console import run_script
from data_prep.files import from_root, to_root, write_json
from data_prep.locks import hold_lock

SCHEMA_VERSION = 1
FIGURES = {
    "frame_macro_f1": ("results", "frame", "macro_f1"),
    "clip_macro_f1": ("results", "clip", "macro_f1"),
    "frame_balanced_accuracy": ("results", "frame", "balanced_accuracy"),
    "clip_balanced_accuracy": ("results", "clip", "balanced_accuracy"),
    "wall_seconds": ("training_seconds", "wall"),
}


def main(argv: list[str]) -> int:
    """Train and evaluate every arm with every seed, write bench_demo.json and print its headline."""
    args = seeds_arguments(argv, __doc__, "bench_demo")
    # As the Makefile has it. Set before huggingface_hub is first imported, which is when it is read.
    os.environ.setdefault("HF_HOME", str(from_root(HF_HOME)))
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    out = from_root(args.out)
    demo = open_demo(from_root(args.data))
    out.mkdir(parents=True, exist_ok=True)
    with hold_lock(out / ".lock", f"another benchmark is at work in {to_root(out)}; wait or end it"):
        runs = [finish_run(demo, out, arm, seed) for seed in args.seeds for arm in ARMS]
        results = {
            "schema_version": SCHEMA_VERSION,
            "machine": machine(),
            "made_from": demo.made_from,
            "recipe_arm": demo.recipe_arm,
            "seeds": args.seeds,
            "runs": runs,
            "summary": summarise(runs),
        }
        write_json(out / "bench_demo.json", results)
    print(as_table(results))
    return 0


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return each figure's median and its value by seed: of every arm, and of weighted less unweighted by seed."""
    by_arm = {
        arm: {figure: {run["seed"]: figure_of(run, figure) for run in runs if run["arm"] == arm} for figure in FIGURES}
        for arm in ARMS
    }
    differences = {
        figure: {
            seed: None if one is None or other is None else one - other
            for (seed, one), other in zip(
                by_arm[WEIGHTED][figure].items(), by_arm[UNWEIGHTED][figure].values(), strict=True
            )
        }
        for figure in FIGURES
    }
    return {
        "arms": {arm: {name: with_median(values) for name, values in by_arm[arm].items()} for arm in ARMS},
        "weighted_minus_unweighted": {name: with_median(values) for name, values in differences.items()},
    }


def figure_of(run: Mapping[str, Any], figure: str) -> float | None:
    """Return one of FIGURES of a run, None where the data don't define it."""
    value: Any = run
    for key in FIGURES[figure]:
        value = None if value is None else value[key]
    return value


def with_median(by_seed: Mapping[int, float | None]) -> dict[str, Any]:
    """Return values by seed, as JSON names them, with their median; a median of undefined values is None."""
    known = [value for value in by_seed.values() if value is not None]
    return {
        "median": median(known) if len(known) == len(by_seed) else None,
        "by_seed": {str(seed): value for seed, value in by_seed.items()},
    }


def as_table(results: Mapping[str, Any]) -> str:
    """Lay out medians and each seed's value as text: every arm, their differences, and what learns nothing."""
    summary, seeds = results["summary"], [f"seed {seed}" for seed in results["seeds"]]
    lines = [table_line("", "", ["median", *seeds])]
    for arm in ARMS:
        name = f"{arm}, the recipe" if arm == results["recipe_arm"] else arm
        lines += table_block(f"{name} labels" if arm == SHUFFLED else name, summary["arms"][arm])
    lines += table_block("weighted - unweighted", summary["weighted_minus_unweighted"])
    baselines = results["runs"][0]["baselines"]
    for name, key in (("base model, no adapter", "base_model"), ("always UNSAFE", "always_unsafe")):
        for figure in ("macro_f1", "balanced_accuracy"):
            cell = number(baselines[key]["frame"][figure], figure)
            lines.append(table_line(name if figure == "macro_f1" else "", f"frame_{figure}", [cell]))
    return "\n".join(lines)


def table_block(name: str, figures: Mapping[str, Any]) -> list[str]:
    """Lay out the figures of one arm, a line each."""
    return [
        table_line(
            name if position == 0 else "",
            figure,
            [number(value, figure) for value in (values["median"], *values["by_seed"].values())],
        )
        for position, (figure, values) in enumerate(figures.items())
    ]


def table_line(name: str, figure: str, cells: Sequence[str]) -> str:
    """Lay out one line of the table."""
    figure = figure.replace("_", " ").replace("f1", "F1")
    return (f"{name:<24}{figure:<26}" + "".join(f"{cell:>9}" for cell in cells)).rstrip()


def number(value: float | None, figure: str) -> str:
    """Write a figure with three decimals, seconds with one, `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:.1f}" if figure == "wall_seconds" else f"{value:.3f}"


if __name__ == "__main__":
    run_script(main)
