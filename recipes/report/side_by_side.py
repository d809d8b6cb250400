"""Two finished evaluations of the same frames side by side."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import InputError
from data_prep.files import to_root
from data_prep.labels import UNSAFE
from recipes.metrics.class_ids import class_ids
from recipes.metrics.comparison import compare
from recipes.metrics.judged import Judged
from recipes.report.table import mcnemar_in_words


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation as its folder keeps it: n frames by clip and sample, their labels and P(UNSAFE).

    `prior` is the share of UNSAFE frames that was stated for it, None where none was.
    """

    folder: Path
    threshold: float
    frames: list[tuple[str, int]]
    labels: list[str]
    p_unsafe: np.ndarray
    prior: float | None = None


def read_evaluation(folder: Path) -> Evaluation:
    """Read an evaluation's `report.json` and `predictions.jsonl`. Raises InputError where one is gone or damaged."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        threshold, prior = float(report["threshold"]["value"]), report["threshold"]["prior"]["stated"]
        predictions = (folder / "predictions.jsonl").read_bytes()
        if hashlib.sha256(predictions).hexdigest() != report["predictions_sha256"]:
            raise InputError(f"{folder}: predictions.jsonl isn't what report.json was made from; evaluate again")
        rows = [json.loads(line) for line in predictions.decode().splitlines()]
        p_unsafe = np.array([float(row["p_unsafe"]) for row in rows])
        if not (((p_unsafe >= 0) & (p_unsafe <= 1)).all() and 0 <= threshold <= 1):
            raise ValueError(f"a P({UNSAFE}) or the threshold is no number from 0 to 1")
        if prior is not None and not 0 < float(prior) < 1:
            raise ValueError("the stated prior is no number between 0 and 1")
        frames = [(row["clip"], row["sample"]) for row in rows]
        return Evaluation(folder, threshold, frames, [row["label"] for row in rows], p_unsafe, prior)
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise InputError(f"{folder}: no {missing}; name the eval folder of a finished evaluation") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: report.json or predictions.jsonl is damaged ({error}); evaluate again") from None


def compare_evaluations(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """Return compare_answers of two evaluations, whatever the order of their frames.

    Raises InputError where they aren't of the same frames under the same labels, or for another stated prior each.
    """
    if first.prior != second.prior:
        stated = ("none" if each.prior is None else f"{each.prior:g}" for each in (first, second))
        folders = f"{first.folder} and {second.folder}"
        raise InputError(f"{folders} are for stated priors {' and '.join(stated)}; evaluate both with the same --prior")
    order = {frame: position for position, frame in enumerate(second.frames)}
    if order.keys() != set(first.frames):
        raise InputError(
            f"{second.folder} and {first.folder} are of {len(set(first.frames) ^ order.keys())} different frames; "
            "evaluate both on the same data set and split"
        )
    moved = [order[frame] for frame in first.frames]
    if [second.labels[position] for position in moved] != first.labels:
        raise InputError(f"{second.folder} and {first.folder} label the same frames differently; evaluate both again")
    truth, clips = class_ids(first.labels), np.array([clip for clip, _ in first.frames])
    return compare(
        Judged.of(first.p_unsafe, truth, clips, threshold=first.threshold, prior=first.prior),
        Judged.of(second.p_unsafe[moved], truth, clips, threshold=second.threshold, prior=second.prior),
    )


def comparison_as_table(first: Evaluation, second: Evaluation, compared: dict[str, Any]) -> str:
    """Lay out a comparison as text: frames, then clips, then the test between the two."""
    lines = [f"first:  {to_root(first.folder)}", f"second: {to_root(second.folder)}"]
    clips = len({clip for clip, _ in first.frames})
    for unit, count in (("frame", len(first.frames)), ("clip", clips)):
        if compared[unit]:
            lines += ["", f"{f'{count} {unit}s':<20}{'first':>9}{'second':>9}{'difference':>12}   95 % interval"]
            lines += [_row(name, figures) for name, figures in compared[unit].items()]
    if tested := compared["mcnemar"]:
        lines += ["", mcnemar_in_words(tested, "first", "second")]
    return "\n".join(lines)


def compared(first: Path, second: Path) -> str:
    """Return two finished evaluations side by side, as text. Raises InputError as the others here do."""
    read = read_evaluation(first), read_evaluation(second)
    return comparison_as_table(*read, compare_evaluations(*read))


def _row(name: str, figures: dict[str, Any] | None) -> str:
    if figures is None:
        return f"{name:<20}{'-':>9}{'-':>9}{'-':>12}   -"
    bounds = figures["interval"]
    interval = f"{bounds[0]:+.3f} to {bounds[1]:+.3f}" if bounds else "-"
    return f"{name:<20}{figures['first']:>9.3f}{figures['second']:>9.3f}{figures['value']:>+12.3f}   {interval}"
