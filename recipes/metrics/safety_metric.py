"""The figures as an evaluate.Metric, and what may be asked of it. Imports no torch."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike

from data_prep.labels import SAFE, UNSAFE
from recipes.metrics.figures import AnsweredFrames, figures_of
from recipes.metrics.threshold import PLAIN_THRESHOLD

_DESCRIPTION = f"Accuracy, F1 and further figures of {SAFE} / {UNSAFE} answers. {UNSAFE} is the positive class."
_INPUTS = f"""
predictions: P({UNSAFE}) of each frame, between 0 and 1
references: the class id of each frame, 0 for {SAFE} and 1 for {UNSAFE}
threshold: the P({UNSAFE}) from which a frame is answered {UNSAFE}
prior: the share that {UNSAFE} frames are to have: frames are weighed so that they do; by default each counts once
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
        return figures_of(AnsweredFrames(np.asarray(predictions), np.asarray(references), threshold, prior))


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
        raise ValueError(f"expected as many P({UNSAFE}) as labels, one at least; got {scores.shape} and {labels.shape}")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(f"a P({UNSAFE}) is not between 0 and 1")
    if not np.isin(labels, [0, 1]).all():
        raise ValueError("a class id is neither 0 nor 1")
    return SafetyMetric().compute(predictions=scores, references=labels.astype(int), threshold=threshold, prior=prior)


def log_loss(p_unsafe: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean negative log-likelihood of the true labels, P clipped to [1e-7, 1 - 1e-7]."""
    p_true = np.where(truth == 1, p_unsafe, 1 - p_unsafe)
    return float(-np.log(p_true.clip(1e-7, 1 - 1e-7)).mean())
