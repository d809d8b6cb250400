"""How far figures would move with other clips: a bootstrap over clips, and a paired test. Imports no torch.

Frames of one clip are near-copies, so clips are drawn anew, each with all its frames (the cluster bootstrap: Field and
Welsh, "Bootstrapping clustered data", 2007). Intervals are the 2.5th to the 97.5th percentile of the drawn figures. The
calibration error's lies high: drawing clips anew adds noise to every bin, and noise only adds to it.

Where a share of UNSAFE frames is stated, it is a fact about the plant and not one more thing that varies: frames are
weighed anew in each resample, so that it holds in each.
"""

import numpy as np

from recipes.metrics.figures import NEEDS_BOTH_LABELS, NEEDS_UNSAFE
from recipes.metrics.resampling import Scores

LEAST_DEFINED = 0.5  # of the resamples: below it, an interval would tell of the others alone
LEAST_CLIPS = 2  # one clip drawn anew is the same clip

Interval = tuple[float, float]


def clips_behind(scores: Scores, *, threshold: float, prior: float | None = None) -> dict[str, int]:
    """Return how many clips each figure's interval comes from: the fewest of a label, where a figure needs both.

    Precision comes from the clips with a frame that is answered UNSAFE. A `prior` lets all but recall need both labels.
    """
    frames, called = (scores.by_clip(rows) for rows in (np.ones(len(scores.truth)), scores.p_unsafe >= threshold))
    of_safe, of_unsafe = (frames > 0).sum(axis=0).tolist()
    both, alarmed = min(of_safe, of_unsafe), int((called.sum(axis=1) > 0).sum())
    without_label = both if prior is not None else scores.clips
    return {
        "accuracy": without_label,
        "brier": without_label,
        "calibration_error": without_label,
        "precision": min(alarmed, without_label),
        **dict.fromkeys(NEEDS_UNSAFE, of_unsafe if prior is None else both),
        "recall": of_unsafe,
        **dict.fromkeys(NEEDS_BOTH_LABELS, both),
    }


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
