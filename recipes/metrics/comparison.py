"""Two classifiers side by side on the same frames: paired intervals and McNemar's test. Imports no torch."""

from typing import Any

import numpy as np
from scipy.stats import binomtest

from recipes.metrics.judged import Judged


def compare(first: Judged, second: Judged) -> dict[str, Any]:
    """Set two classifiers side by side on the same frames, and on their clips.

    `frame` and `clip` hold each figure of the first and of the second, their difference and its paired interval;
    `mcnemar` counts clips. Where clips have no label of their own, the latter two are None.
    """
    compared: dict[str, Any] = {"frame": first.frame.above(second.frame), "clip": None, "mcnemar": None}
    if first.clip and second.clip:
        compared["clip"] = first.clip.above(second.clip)
        right = [(each.scores.p_unsafe >= each.threshold) == each.scores.truth for each in (first.clip, second.clip)]
        compared["mcnemar"] = mcnemar(*right)
    return compared


def mcnemar(right: np.ndarray, other_right: np.ndarray) -> dict[str, float]:
    """Test whether two classifiers are right equally often on the same clips, both arguments of shape (clips,).

    Returns how many clips either alone gets right and the exact two-sided p-value (McNemar 1947, by the binomial
    distribution): 1.0 where they never differ.
    """
    only_first, only_second = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p_value": p_value}
