"""How far a figure would move with other clips: its 95 % interval. Imports no torch.

Intervals are the 2.5th to the 97.5th percentile of the figure in resamples of the clips. The calibration error's lies
high: drawing clips anew adds noise to every bin, and noise only adds to it.
"""

import numpy as np

from data_prep.labels import LABELS
from recipes.metrics.figures import FIGURES
from recipes.metrics.resampling import Scores

LEAST_DEFINED = 0.5  # of the resamples: below it, an interval would tell of the others alone
LEAST_CLIPS = 2  # one clip drawn anew is the same clip

Interval = tuple[float, float]


def clips_behind(scores: Scores, *, threshold: float, prior: float | None = None) -> dict[str, int]:
    """Return how many clips each figure's interval comes from: the fewest of a label, where a figure needs both.

    Precision comes from the clips with a frame that is answered UNSAFE.
    """
    frames, called = (scores.by_clip(rows) for rows in (np.ones(len(scores.truth)), scores.p_unsafe >= threshold))
    of_label = dict(zip(LABELS, (frames > 0).sum(axis=0).tolist(), strict=True))
    behind = {
        figure.name: min((of_label[label] for label in figure.needed_labels(prior)), default=scores.clips)
        for figure in FIGURES
    }
    return {**behind, "precision": min(behind["precision"], int((called.sum(axis=1) > 0).sum()))}


def at_most_without_error(clips: int) -> float:
    """Return which share of clips may still go wrong where none of `clips` did: the 95 % bound by the rule of three.

    Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything all right?", JAMA 249.
    """
    return min(1.0, 3 / clips)


def interval(values: np.ndarray) -> Interval | None:
    """Return the 2.5th and the 97.5th percentile of the values that are defined, None where too few are."""
    defined = values[np.isfinite(values)]
    if len(defined) < LEAST_DEFINED * len(values):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)
