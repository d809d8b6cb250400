"""The figures of a report, each defined here alone: report.json, table, page and card follow. Imports no torch.

The figures of frames are scikit-learn's; those of many resamples are computed from counts, all at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from sklearn import metrics as sk

from data_prep.labels import LABELS, UNSAFE
from recipes.metrics.calibration import calibration_error
from recipes.metrics.class_ids import POSITIVE
from recipes.metrics.prior_shift import weigh
from recipes.metrics.resampling import AnsweredResamples, Counts, Resamples, divide


class ByLabel(NamedTuple):
    """Figures of each label, in the order of LABELS, of shape (2,)."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


@dataclass(frozen=True)
class AnsweredFrames:
    """P(UNSAFE) of n frames and their class ids, of shape (n,), where UNSAFE is answered from `threshold` on.

    With a `prior`, frames are weighed so that UNSAFE has that share.
    """

    p_unsafe: np.ndarray
    truth: np.ndarray
    threshold: float
    prior: float | None = None

    @cached_property
    def answers(self) -> np.ndarray:
        """The class ids that are answered."""
        return (self.p_unsafe >= self.threshold).astype(int)

    @cached_property
    def weights(self) -> np.ndarray | None:
        """What each frame weighs, None where all weigh the same."""
        return weigh(self.truth, self.prior)

    @cached_property
    def by_label(self) -> ByLabel:
        """Precision, recall and F1 of each label; 0 where one isn't defined."""
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            self.truth, self.answers, labels=[0, 1], zero_division=0.0, sample_weight=self.weights
        )
        return ByLabel(precision, recall, f1)


@dataclass(frozen=True)
class Figure:
    """A figure: its name in report.json, its name in words, its value of frames, and in each resample of their clips.

    `of_resamples` returns shape (resamples,), NaN where a resample doesn't define it. `needs` are the labels without
    whose frames it isn't defined. One that mixes the labels' frames needs both where a share of UNSAFE is stated.
    """

    name: str
    words: str
    of_frames: Callable[[AnsweredFrames], float]
    of_resamples: Callable[[AnsweredResamples], np.ndarray]
    needs: tuple[str, ...] = ()
    mixes_labels: bool = True
    in_table: bool = True

    def needed_labels(self, prior: float | None) -> tuple[str, ...]:
        """Return the labels that it needs where a share of UNSAFE frames is stated, or none is."""
        return self.needs if prior is None or not self.mixes_labels else LABELS


def _accuracy(counts: Counts) -> np.ndarray:
    tp, fp, fn, tn = counts
    return (tp + tn) / (tp + fn + (tn + fp))


def _precision(counts: Counts) -> np.ndarray:
    called = counts.tp + counts.fp
    return np.where(np.isnan(called), np.nan, divide(counts.tp, called, 0.0))


def _recall(counts: Counts) -> np.ndarray:
    return divide(counts.tp, counts.tp + counts.fn)


def _f1(counts: Counts) -> np.ndarray:
    tp, fp, fn, _ = counts
    return np.where(tp + fn > 0, divide(2 * tp, 2 * tp + fp + fn), np.nan)


def _macro_f1(counts: Counts) -> np.ndarray:
    tp, fp, fn, tn = counts
    both = (tp + fn > 0) & (tn + fp > 0)
    f1, f1_of_safe = divide(2 * tp, 2 * tp + fp + fn), divide(2 * tn, 2 * tn + fp + fn)
    return np.where(both, (f1 + f1_of_safe) / 2, np.nan)


def _balanced_accuracy(counts: Counts) -> np.ndarray:
    return (_recall(counts) + divide(counts.tn, counts.tn + counts.fp)) / 2


def _mcc(counts: Counts) -> np.ndarray:
    tp, fp, fn, tn = counts
    unsafe, safe = tp + fn, tn + fp
    spread = np.sqrt((tp + fp) * unsafe * safe * (tn + fn))
    return np.where((unsafe > 0) & (safe > 0), divide(tp * tn - fp * fn, spread, 0.0), np.nan)


# In the order of report.json. A figure that is added here stands in the report, its table and its page.
FIGURES = (
    Figure(
        "accuracy",
        "accuracy",
        lambda frames: sk.accuracy_score(frames.truth, frames.answers, sample_weight=frames.weights),
        lambda resamples: _accuracy(resamples.weighed),
    ),
    Figure(
        "precision",
        f"precision of {UNSAFE}",
        lambda frames: frames.by_label.precision[POSITIVE],
        lambda resamples: _precision(resamples.weighed),
    ),
    Figure(
        "recall",
        f"recall of {UNSAFE}",
        lambda frames: frames.by_label.recall[POSITIVE],
        lambda resamples: _recall(resamples.counts),
        needs=(UNSAFE,),
        mixes_labels=False,
    ),
    Figure(
        "f1",
        f"F1 of {UNSAFE}",
        lambda frames: frames.by_label.f1[POSITIVE],
        lambda resamples: _f1(resamples.weighed),
        needs=(UNSAFE,),
    ),
    Figure(
        "macro_f1",
        "macro-F1",
        lambda frames: frames.by_label.f1.mean(),
        lambda resamples: _macro_f1(resamples.weighed),
        needs=LABELS,
    ),
    Figure(
        "balanced_accuracy",
        "balanced accuracy",
        lambda frames: frames.by_label.recall.mean(),
        lambda resamples: _balanced_accuracy(resamples.counts),
        needs=LABELS,
    ),
    Figure(
        "mcc",
        "Matthews correlation",
        lambda frames: sk.matthews_corrcoef(frames.truth, frames.answers, sample_weight=frames.weights),
        lambda resamples: _mcc(resamples.weighed),
        needs=LABELS,
    ),
    Figure(
        "auroc",
        "AUROC",
        lambda frames: sk.roc_auc_score(frames.truth, frames.p_unsafe, sample_weight=frames.weights),
        lambda resamples: resamples.drawn.ranking.auroc,
        needs=LABELS,
    ),
    Figure(
        "average_precision",
        "average precision",
        lambda frames: sk.average_precision_score(frames.truth, frames.p_unsafe, sample_weight=frames.weights),
        lambda resamples: resamples.drawn.ranking.average_precision,
        needs=LABELS,
        in_table=False,
    ),
    Figure(
        "brier",
        "Brier score (less is better)",
        lambda frames: np.average((frames.p_unsafe - frames.truth) ** 2, weights=frames.weights),
        lambda resamples: resamples.drawn.errors.squared,
        in_table=False,
    ),
    Figure(
        "calibration_error",
        "calibration error (less is better)",
        lambda frames: calibration_error(frames.p_unsafe, frames.truth, frames.weights),
        lambda resamples: resamples.drawn.errors.calibration,
        in_table=False,
    ),
)
# As people read them: balanced accuracy stands beside accuracy, which it corrects.
READING_ORDER = sorted(FIGURES, key=lambda figure: figure.name not in ("accuracy", "balanced_accuracy"))


def figures_of(frames: AnsweredFrames) -> dict[str, float | None]:
    """Return each figure, None where it isn't defined, such as an AUROC of one label."""
    there = {label for number, label in enumerate(LABELS) if number in frames.truth}
    return {
        figure.name: float(figure.of_frames(frames)) if there.issuperset(figure.needed_labels(frames.prior)) else None
        for figure in FIGURES
    }


def resampled_figures(resamples: Resamples, threshold: float) -> dict[str, np.ndarray]:
    """Return each figure in each resample, of shape (resamples,); NaN where it isn't defined."""
    answered = AnsweredResamples(resamples, threshold)
    return {figure.name: figure.of_resamples(answered) for figure in FIGURES}
