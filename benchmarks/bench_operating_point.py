"""Which operating point does best where the share of UNSAFE frames shifts: thresholds and the prior's correction.

    python benchmarks/bench_operating_point.py --runs outputs/bench_demo --seeds 0 1 2

It wants the adapters that bench_demo.py leaves, trained with balanced labels and with labels as they are, and evaluates
each on validation and test unless that is done. Nothing is trained: a threshold is chosen on a run's own validation
frames, and the correction follows from the training prior. Figures are of the test frames, each the mean over the
seeds; intervals come from a bootstrap over clips, the same clips for every seed and way.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.demo_runs import UNWEIGHTED, WEIGHTED, run_python
from benchmarks.measuring.machine import machine
from data_prep.console import run_script
from data_prep.errors import InputError
from data_prep.files import from_root, to_root, write_json
from recipes.metrics.class_ids import class_ids, mean_by_clip
from recipes.metrics.figures import resampled_figures
from recipes.metrics.intervals import interval
from recipes.metrics.judged import clips_as_frames
from recipes.metrics.prior_shift import at_prior
from recipes.metrics.resampling import Resamples, Scores, draw_clips
from recipes.metrics.safety_metric import compute_figures
from recipes.metrics.threshold import choose_threshold
from recipes.report.side_by_side import Evaluation, read_evaluation

FIGURES = ("macro_f1", "recall", "precision", "brier")


@dataclass(frozen=True)
class Way:
    """How P(UNSAFE) becomes an answer: which runs, for which stated prior, from which threshold on."""

    arm: str
    rule: str
    prior: float | None = None

    @property
    def name(self) -> str:
        """Say in a few words what is done."""
        labels = "labels balanced" if self.arm == WEIGHTED else "labels as they are"
        return f"{labels}, {'' if self.prior is None else f'prior {self.prior:g}, '}{self.rule}"


DEFAULT = Way(WEIGHTED, "0.5")
WAYS = [
    DEFAULT,
    Way(WEIGHTED, "macro_f1"),
    Way(WEIGHTED, "recall>=0.98"),
    Way(UNWEIGHTED, "0.5"),
    Way(UNWEIGHTED, "0.5", prior=0.5),
    Way(UNWEIGHTED, "macro_f1"),
    Way(UNWEIGHTED, "recall>=0.98"),
]


@dataclass(frozen=True)
class Run:
    """A trained adapter's frames: those of validation, and those of test, which the figures are of."""

    training_prior: float
    validation: Evaluation
    test: Evaluation


def main(argv: list[str]) -> int:
    """Print a table of ways, and write it with all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="outputs/bench_demo", help="folder of bench_demo.py's (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    args = parser.parse_args(argv)
    folder = from_root(args.runs)
    runs = {arm: [read_run(folder / arm / f"seed{seed}") for seed in args.seeds] for arm in (WEIGHTED, UNWEIGHTED)}
    table = compare_ways(runs)
    results = {"schema_version": 1, "machine": machine(), "seeds": args.seeds, "ways": table}
    write_json(folder / "operating_point.json", results)
    print(as_table(table))
    print(f"figures: {to_root(folder / 'operating_point.json')}", file=sys.stderr)
    return 0


def read_run(folder: Path) -> Run:
    """Return a run's evaluations, made first where they are missing. Raises InputError where there is no run."""
    if not (folder / "safety.json").is_file():
        raise InputError(f"{to_root(folder)}: no adapter; run benchmarks/bench_demo.py first")
    record = json.loads((folder / "safety.json").read_text())
    return Run(record["training_prior"], evaluation_of(folder, "validation"), evaluation_of(folder, "test"))


def evaluation_of(folder: Path, split: str) -> Evaluation:
    """Return a run's evaluation of one split of its own data."""

    def found() -> list[Path]:
        return sorted(path.parent for path in folder.glob("eval/**/report.json") if split_of(path) == split)

    if not found():
        evaluate = ["recipes/eval_qwen2vl.py", "--adapter", str(folder), "--split", split, "--skip-base-model"]
        run_python(evaluate, f"evaluating {to_root(folder)}")
    return read_evaluation(found()[0])


def split_of(report: Path) -> str | None:
    """Return the split that a report is of, None where it is for a stated prior or of other data."""
    content = json.loads(report.read_text())
    config, prior = content["config"], content["threshold"]["prior"]["stated"]
    plain = prior is None and config["same_data_as_training"] and not config["blank_frames"]
    return str(config["split"]) if plain else None


def compare_ways(runs: dict[str, list[Run]], ways: Sequence[Way] = WAYS) -> list[dict[str, Any]]:
    """Return each way's figures by seed, their means with intervals, and how far they are from the first way's."""
    resampled = [resample(way, runs[way.arm]) for way in ways]
    table = []
    for way, figures in zip(ways, resampled, strict=True):
        row: dict[str, Any] = {"name": way.name, "thresholds": figures["thresholds"]}
        for unit in ("frame", "clip"):
            row[unit] = {
                name: {
                    "by_seed": figures[unit][name]["by_seed"],
                    "mean": float(np.mean(figures[unit][name]["by_seed"])),
                    "interval": interval(figures[unit][name]["drawn"]),
                    "above_first": float(
                        np.mean(figures[unit][name]["by_seed"]) - np.mean(resampled[0][unit][name]["by_seed"])
                    ),
                    "above_first_interval": interval(figures[unit][name]["drawn"] - resampled[0][unit][name]["drawn"]),
                }
                for name in FIGURES
            }
        table.append(row)
    return table


def resample(way: Way, runs: Sequence[Run]) -> dict[str, Any]:
    """Return each figure of a way by seed, and in each resample of clips as the mean over the seeds."""
    thresholds: list[float] = []
    by_seed: dict[str, list[dict[str, Any]]] = {"frame": [], "clip": []}
    drawn: dict[str, list[dict[str, Any]]] = {"frame": [], "clip": []}
    for run in runs:
        validation, test = (corrected(each, run, way) for each in (run.validation, run.test))
        threshold, _ = choose_threshold(way.rule, validation, class_ids(run.validation.labels))
        thresholds.append(threshold)
        truth, clips = class_ids(run.test.labels), [clip for clip, _ in run.test.frames]
        of_clips = mean_by_clip(test, truth, clips)
        assert of_clips is not None
        for unit, scores in (("frame", Scores.of(test, truth, clips)), ("clip", clips_as_frames(*of_clips))):
            by_seed[unit].append(dict(compute_figures(scores.p_unsafe, scores.truth, threshold=threshold)))
            times = draw_clips(int(scores.clip_of_row.max()) + 1)
            drawn[unit].append(resampled_figures(Resamples(scores, times), threshold))
    return {
        "thresholds": thresholds,
        **{
            unit: {
                name: {
                    "by_seed": [figures[name] for figures in by_seed[unit]],
                    "drawn": np.mean([figures[name] for figures in drawn[unit]], axis=0),
                }
                for name in FIGURES
            }
            for unit in by_seed
        },
    }


def corrected(evaluation: Evaluation, run: Run, way: Way) -> np.ndarray:
    """Return an evaluation's P(UNSAFE), for the way's prior where it states one."""
    if way.prior is None:
        return evaluation.p_unsafe
    return at_prior(evaluation.p_unsafe, training_prior=run.training_prior, prior=way.prior)


def as_table(table: Sequence[dict[str, Any]]) -> str:
    """Lay the ways out as Markdown: means over the seeds, with intervals."""
    lines = [
        "| labels, threshold | macro-F1, frames | clips | recall, frames | precision | above the first, frames |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in table:
        frame = row["frame"]
        cells = [_cell(frame["macro_f1"]), _cell(row["clip"]["macro_f1"]), _cell(frame["recall"])]
        low, high = frame["macro_f1"]["above_first_interval"]
        lead = f"{frame['macro_f1']['above_first']:+.3f} ({low:+.3f} to {high:+.3f})"
        lines.append(f"| {row['name']} | {' | '.join([*cells, _cell(frame['precision']), lead])} |")
    return "\n".join(lines)


def _cell(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['mean']:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    run_script(main)
