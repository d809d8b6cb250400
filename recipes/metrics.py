"""Figures of a binary classifier as an evaluate.Metric over scikit-learn. Imports no torch."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike
from sklearn import metrics as sk

from data_prep.labels import LABELS, UNSAFE

POSITIVE = LABELS.index(UNSAFE)
CALIBRATION_BINS = 10

_DESCRIPTION = "Accuracy, F1 and further figures of SAFE / UNSAFE answers. UNSAFE is the positive class."
_INPUTS = """
predictions: P(UNSAFE) of each frame, between 0 and 1
references: the class id of each frame, 0 for SAFE and 1 for UNSAFE
threshold: the P(UNSAFE) from which a frame is answered UNSAFE
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
        self, predictions: Sequence[float], references: Sequence[int], threshold: float = 0.5
    ) -> dict[str, float | None]:
        p_unsafe, truth = np.asarray(predictions), np.asarray(references)
        answers = (p_unsafe >= threshold).astype(int)
        return {**_figures_of_answers(truth, answers), **_figures_of_scores(truth, p_unsafe)}


def compute_figures(p_unsafe: ArrayLike, truth: ArrayLike, *, threshold: float) -> dict[str, float | None]:
    """Return the figures of P(UNSAFE) against class ids, both of length n.

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
    return SafetyMetric().compute(predictions=scores, references=labels.astype(int), threshold=threshold)


def class_ids(responses: Sequence[str]) -> np.ndarray:
    """Return the class ids, of shape (n,), of labels: 0 for SAFE, 1 for UNSAFE."""
    return np.array([LABELS.index(response) for response in responses])


def mean_by_clip(p_unsafe: np.ndarray, truth: np.ndarray, clips: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mean P(UNSAFE) and the class id of each clip, both of shape (clips,), in the order of the names.

    The arguments are of length n: a frame's P(UNSAFE), its class id and its clip's name. None where a clip's frames
    bear both labels, as frames relabelled by hand may: such a clip has no label of its own.
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


def _figures_of_answers(truth: np.ndarray, answers: np.ndarray) -> dict[str, float | None]:
    scored = {"labels": [0, 1], "zero_division": 0.0}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, answers, **scored)
    both = len(np.unique(truth)) == len(LABELS)
    return {
        "accuracy": float(sk.accuracy_score(truth, answers)),
        "precision": float(precision[POSITIVE]),
        "recall": float(recall[POSITIVE]) if POSITIVE in truth else None,
        "f1": float(f1[POSITIVE]) if POSITIVE in truth else None,
        "macro_f1": float(f1.mean()) if both else None,
        "balanced_accuracy": float(recall.mean()) if both else None,
        "mcc": float(sk.matthews_corrcoef(truth, answers)) if both else None,
    }


def _figures_of_scores(truth: np.ndarray, p_unsafe: np.ndarray) -> dict[str, float | None]:
    both = len(np.unique(truth)) == len(LABELS)
    return {
        "auroc": float(sk.roc_auc_score(truth, p_unsafe)) if both else None,
        "average_precision": float(sk.average_precision_score(truth, p_unsafe)) if both else None,
        "brier": float(np.mean((p_unsafe - truth) ** 2)),
        "calibration_error": sum(
            abs(row["unsafe_share"] - row["mean_p_unsafe"]) * row["n"] for row in calibration(p_unsafe, truth)
        )
        / len(truth),
    }


def calibration_bin(p_unsafe: np.ndarray) -> np.ndarray:
    """Return which of CALIBRATION_BINS equal stretches of [0, 1] each P(UNSAFE) lies in; 1 lies in the last."""
    return np.minimum((p_unsafe * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def calibration(p_unsafe: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
    """Return, for each tenth of the scale that holds a frame: how many, their mean P(UNSAFE), and the share UNSAFE.

    The mean of the gaps between the latter two, frame by frame, is the expected calibration error (Guo et al. 2017,
    arXiv 1706.04599).
    """
    bins = calibration_bin(p_unsafe)
    return [
        {
            "from": each / CALIBRATION_BINS,
            "to": (each + 1) / CALIBRATION_BINS,
            "n": int((bins == each).sum()),
            "mean_p_unsafe": float(p_unsafe[bins == each].mean()),
            "unsafe_share": float(truth[bins == each].mean()),
        }
        for each in np.unique(bins).tolist()
    ]
