"""Figures of a binary classifier as an evaluate.Metric over scikit-learn. Imports no torch."""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike
from sklearn import metrics as sk

from data_prep.labels import LABELS, UNSAFE
from recipes.metrics.threshold import PLAIN_THRESHOLD

POSITIVE = LABELS.index(UNSAFE)
CALIBRATION_BINS = 10
NEEDS_UNSAFE = ("recall", "f1")
NEEDS_BOTH_LABELS = ("macro_f1", "balanced_accuracy", "mcc", "auroc", "average_precision")

_DESCRIPTION = "Accuracy, F1 and further figures of SAFE / UNSAFE answers. UNSAFE is the positive class."
_INPUTS = """
predictions: P(UNSAFE) of each frame, between 0 and 1
references: the class id of each frame, 0 for SAFE and 1 for UNSAFE
threshold: the P(UNSAFE) from which a frame is answered UNSAFE
prior: the share that UNSAFE frames are to have: frames are weighed so that they do; by default each counts once
"""


class SafetyMetric(evaluate.Metric):
    """Compute every figure of the report from P(UNSAFE) and the true labels.

    A figure that the data don't define, such as an AUROC of one class, is None.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=True, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[int],
        threshold: float = PLAIN_THRESHOLD,
        prior: float | None = None,
    ) -> dict[str, float | None]:
        p_unsafe, truth = np.asarray(predictions), np.asarray(references)
        answers = (p_unsafe >= threshold).astype(int)
        weights = weigh(truth, prior)
        figures = {
            **_figures_of_answers(truth, answers, weights),
            **_figures_of_scores(truth, p_unsafe, prior),
        }
        if prior is None or len(np.unique(truth)) == len(LABELS):
            return figures
        return {name: value if name == "recall" else None for name, value in figures.items()}


def compute_figures(
    p_unsafe: ArrayLike, truth: ArrayLike, *, threshold: float, prior: float | None = None
) -> dict[str, float | None]:
    """Return the figures of P(UNSAFE) against class ids, both of length n.

    With a `prior`, frames are weighed so that UNSAFE has that share; where there is one label alone, recall is left.
    Raises ValueError for nothing to compute on, unequal lengths, a P(UNSAFE) outside [0, 1] or a class id that is none
    of 0 and 1: evaluate itself would cast or accept them.
    """
    scores, labels = np.asarray(p_unsafe, dtype=float), np.asarray(truth)
    if scores.ndim != 1 or scores.shape != labels.shape or scores.size == 0:
        raise ValueError(f"expected as many P(UNSAFE) as labels, one at least; got {scores.shape} and {labels.shape}")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("a P(UNSAFE) is not between 0 and 1")
    if not np.isin(labels, [0, 1]).all():
        raise ValueError("a class id is neither 0 nor 1")
    return SafetyMetric().compute(predictions=scores, references=labels.astype(int), threshold=threshold, prior=prior)


def weigh(truth: np.ndarray, prior: float | None) -> np.ndarray | None:
    """Return what n rows weigh so that UNSAFE ones weigh `prior` together and SAFE ones the rest; None for no prior."""
    if prior is None:
        return None
    unsafe = int(truth.sum())
    return np.where(truth == POSITIVE, prior / max(unsafe, 1), (1 - prior) / max(len(truth) - unsafe, 1))


def class_ids(responses: Sequence[str]) -> np.ndarray:
    """Return the class ids, of shape (n,), of labels: 0 for SAFE, 1 for UNSAFE."""
    return np.array([LABELS.index(response) for response in responses])


def mean_by_clip(p_unsafe: np.ndarray, truth: np.ndarray, clips: ArrayLike) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mean P(UNSAFE) and the class id of each clip, both of shape (clips,), in the order of the clips.

    The arguments are of length n: a frame's P(UNSAFE), its class id and its clip's name or number. None where a clip's
    frames bear both labels, as frames relabelled by hand may: such a clip has no label of its own.
    """
    _, clip_of_row = np.unique(np.asarray(clips), return_inverse=True)
    frames = np.bincount(clip_of_row)
    labels = np.bincount(clip_of_row, weights=truth) / frames
    if not np.isin(labels, [0, 1]).all():
        return None
    return np.bincount(clip_of_row, weights=p_unsafe) / frames, labels.astype(int)


def confusion_matrix(answers: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, int]]:
    """Count answers by true label: `matrix["UNSAFE"]["SAFE"]` are the UNSAFE frames that were answered SAFE."""
    counts = sk.confusion_matrix(truth, answers, labels=[0, 1])
    return {
        actual: {answer: int(counts[row, column]) for column, answer in enumerate(LABELS)}
        for row, actual in enumerate(LABELS)
    }


def _figures_of_answers(truth: np.ndarray, answers: np.ndarray, weights: np.ndarray | None) -> dict[str, float | None]:
    weighed = {"sample_weight": weights}
    scored = {"labels": [0, 1], "zero_division": 0.0, **weighed}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, answers, **scored)
    both = len(np.unique(truth)) == len(LABELS)
    return {
        "accuracy": float(sk.accuracy_score(truth, answers, **weighed)),
        "precision": float(precision[POSITIVE]),
        "recall": float(recall[POSITIVE]) if POSITIVE in truth else None,
        "f1": float(f1[POSITIVE]) if POSITIVE in truth else None,
        "macro_f1": float(f1.mean()) if both else None,
        "balanced_accuracy": float(recall.mean()) if both else None,
        "mcc": float(sk.matthews_corrcoef(truth, answers, **weighed)) if both else None,
    }


def _figures_of_scores(truth: np.ndarray, p_unsafe: np.ndarray, prior: float | None) -> dict[str, float | None]:
    both, weights = len(np.unique(truth)) == len(LABELS), weigh(truth, prior)
    weighed, bins = {"sample_weight": weights}, _bins(p_unsafe, truth, weights)
    return {
        "auroc": float(sk.roc_auc_score(truth, p_unsafe, **weighed)) if both else None,
        "average_precision": float(sk.average_precision_score(truth, p_unsafe, **weighed)) if both else None,
        "brier": float(np.average((p_unsafe - truth) ** 2, weights=weights)),
        "calibration_error": sum(abs(share - mean) * weight for _, weight, mean, share in bins)
        / (len(truth) if weights is None else 1.0),
    }


def calibration_bin(p_unsafe: np.ndarray) -> np.ndarray:
    """Return which of CALIBRATION_BINS equal stretches of [0, 1] each P(UNSAFE) lies in; 1 lies in the last."""
    return np.minimum((p_unsafe * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def _bins(
    p_unsafe: np.ndarray, truth: np.ndarray, weights: np.ndarray | None
) -> Iterator[tuple[np.ndarray, float, float, float]]:
    """Return, for each bin that holds a frame: which frames, their weight, mean P(UNSAFE), and the share UNSAFE."""
    bins = calibration_bin(p_unsafe)
    for each in np.unique(bins):
        here = bins == each
        of_here = None if weights is None else weights[here]
        weight = float(here.sum() if of_here is None else of_here.sum())
        mean, share = (float(np.average(values[here], weights=of_here)) for values in (p_unsafe, truth))
        yield here, weight, mean, share


def calibration(p_unsafe: np.ndarray, truth: np.ndarray, *, prior: float | None = None) -> list[dict[str, Any]]:
    """Return, for each tenth of the scale that holds a frame: how many, their mean P(UNSAFE), and the share UNSAFE.

    With a `prior` the latter two are of frames weighed so that UNSAFE has that share; how many is a count in any case.
    The mean of the gaps between the two, frame by frame, is the expected calibration error (Guo et al. 2017, arXiv
    1706.04599).
    """
    bins = calibration_bin(p_unsafe)
    return [
        {
            "from": int(bins[here][0]) / CALIBRATION_BINS,
            "to": (int(bins[here][0]) + 1) / CALIBRATION_BINS,
            "n": int(here.sum()),
            "mean_p_unsafe": mean,
            "unsafe_share": share,
        }
        for here, _, mean, share in _bins(p_unsafe, truth, weigh(truth, prior))
    ]
