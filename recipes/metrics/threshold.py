"""The threshold of P(UNSAFE), fixed or chosen on the validation frames when training ends. Imports no torch."""

import numpy as np

from data_prep.errors import InputError
from data_prep.labels import SAFE, UNSAFE

PLAIN_THRESHOLD = 0.5  # the likelier of the two answers
MACRO_F1 = "macro_f1"
RECALL = "recall>="
FIXED = "fixed"  # how a threshold came about that is a number in the settings


def label_of(p_unsafe: float, threshold: float) -> str:
    """Return UNSAFE where P(UNSAFE) reaches the threshold, else SAFE.

    Raises InputError for a P(UNSAFE) that is no number from 0 to 1: compared with a threshold it would pass for SAFE.
    """
    if not 0.0 <= p_unsafe <= 1.0:
        raise InputError(f"P({UNSAFE}) is {p_unsafe}, no number from 0 to 1, so there is no answer")
    return UNSAFE if p_unsafe >= threshold else SAFE


def check_rule(rule: str) -> None:
    """Raise InputError unless a rule is a number from 0 to 1, `macro_f1`, or `recall>=` and a number in (0, 1]."""
    number = rule.removeprefix(RECALL)
    try:
        valid = rule == MACRO_F1 or (0.0 < float(number) <= 1.0) or (number == rule and float(number) == 0.0)
    except ValueError:
        valid = False
    if not valid:
        raise InputError(
            f"threshold {rule!r} is none of: a number from 0 to 1, {MACRO_F1}, {RECALL}0.98 with a number of your own"
        )


def fixed_threshold(rule: str) -> float | None:
    """Return the threshold of a rule that is a number, None for one that needs validation frames."""
    return None if rule == MACRO_F1 or rule.startswith(RECALL) else float(rule)


def choose_threshold(rule: str, p_unsafe: np.ndarray, truth: np.ndarray) -> tuple[float, str]:
    """Return the threshold that a rule chooses on n frames, and how it came about, in words.

    `p_unsafe` and `truth`, the class ids, have shape (n,); both labels occur. `macro_f1` takes the highest macro-F1, of
    several that reach it the one nearest 0.5. `recall>=R` takes the highest threshold at which at least that share of
    the UNSAFE frames is answered UNSAFE. Thresholds lie half way between neighbouring P(UNSAFE), so that what rounding
    does to a P changes no answer; 0.5 counts as one, too, and so does 0, which alone finds a P of exactly 0.
    """
    fixed = fixed_threshold(rule)
    if fixed is not None:
        return fixed, FIXED
    levels = np.unique(np.r_[0.0, p_unsafe, 1.0])
    thresholds = np.unique(np.r_[0.0, (levels[1:] + levels[:-1]) / 2, PLAIN_THRESHOLD])
    unsafe, safe = np.sort(p_unsafe[truth == 1]), np.sort(p_unsafe[truth == 0])
    hits = len(unsafe) - np.searchsorted(unsafe, thresholds)
    false_alarms = len(safe) - np.searchsorted(safe, thresholds)
    if rule == MACRO_F1:
        f1 = 2 * hits / (hits + false_alarms + len(unsafe))
        right = len(safe) - false_alarms
        f1_of_safe = 2 * right / (right + len(unsafe) - hits + len(safe))
        macro_f1 = (f1 + f1_of_safe) / 2
        best = np.flatnonzero(np.isclose(macro_f1, macro_f1.max(), rtol=0, atol=1e-12))
        chosen = best[np.abs(thresholds[best] - PLAIN_THRESHOLD).argmin()]
    else:
        chosen = np.flatnonzero(hits >= float(rule.removeprefix(RECALL)) * len(unsafe) - 1e-9)[-1]
    return float(thresholds[chosen]), (
        f"{rule} on {len(truth)} validation frames: {hits[chosen]} of {len(unsafe)} {UNSAFE} frames found, "
        f"{false_alarms[chosen]} of {len(safe)} {SAFE} frames called {UNSAFE}"
    )
