"""Whether P(UNSAFE) is to be taken at its word: what it says and what is so, by tenths of the scale. Imports no torch.

The mean of the gaps between the two, frame by frame, is the expected calibration error (Guo et al. 2017, arXiv
1706.04599).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from recipes.metrics.prior_shift import weigh

CALIBRATION_BINS = 10


def calibration_bin(p_unsafe: np.ndarray) -> np.ndarray:
    """Return which of CALIBRATION_BINS equal stretches of [0, 1] each P(UNSAFE) lies in; 1 lies in the last."""
    return np.minimum((p_unsafe * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)


def calibration(p_unsafe: np.ndarray, truth: np.ndarray, *, prior: float | None = None) -> list[dict[str, Any]]:
    """Return, for each tenth of the scale that holds a frame: how many, their mean P(UNSAFE), and the share UNSAFE.

    With a `prior` the latter two are of frames weighed so that UNSAFE has that share; how many is a count in any case.
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
        for here, _, mean, share in _filled_bins(p_unsafe, truth, weigh(truth, prior))
    ]


def calibration_error(p_unsafe: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the expected calibration error of n frames; `weights`, of shape (n,), sum to 1."""
    bins = _filled_bins(p_unsafe, truth, weights)
    gaps = sum(abs(share - mean) * weight for _, weight, mean, share in bins)
    return gaps / (len(truth) if weights is None else 1.0)


def _filled_bins(
    p_unsafe: np.ndarray, truth: np.ndarray, weights: np.ndarray | None
) -> Iterator[tuple[np.ndarray, float, float, float]]:
    """Yield, for each bin that holds a frame: which frames, their weight, mean P(UNSAFE), and the share UNSAFE."""
    bins = calibration_bin(p_unsafe)
    for each in np.unique(bins):
        here = bins == each
        of_here = None if weights is None else weights[here]
        weight = float(here.sum() if of_here is None else of_here.sum())
        mean, share = (float(np.average(values[here], weights=of_here)) for values in (p_unsafe, truth))
        yield here, weight, mean, share
