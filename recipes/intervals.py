"""How far figures would move with other clips: a bootstrap over clips, and a paired test. Imports no torch.

Frames of one clip are near-copies, so clips are drawn anew, each with all its frames (the cluster bootstrap: Field and
Welsh, "Bootstrapping clustered data", 2007). Intervals are the 2.5th to the 97.5th percentile of the drawn figures. The
calibration error's lies high: drawing clips anew adds noise to every bin, and noise only adds to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from recipes.metrics import calibration_bin

RESAMPLES = 2000
SEED = 0
LEAST_DEFINED = 0.5  # of the resamples: below it, an interval would tell of the others alone
_CELLS_AT_ONCE = 2_000_000  # resamples times frames that are ranked together: 16 MB a temporary

Interval = tuple[float, float]


@dataclass(frozen=True)
class Scores:
    """P(UNSAFE) of n frames, their class ids and the clips they are of, all of shape (n,)."""

    p_unsafe: np.ndarray
    truth: np.ndarray
    clip_of_row: np.ndarray

    @classmethod
    def of(cls, p_unsafe: np.ndarray, truth: np.ndarray, clips: Sequence[str]) -> "Scores":
        """Number the clips by their names."""
        return cls(p_unsafe, truth, np.unique(np.asarray(clips), return_inverse=True)[1])


def draw_clips(clips: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Return how often each of so many clips is in each resample, of shape (resamples, clips)."""
    return np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=resamples)


def resampled_figures(scores: Scores, times: np.ndarray, *, threshold: float) -> dict[str, np.ndarray]:
    """Return each figure of metrics.py in each resample, of shape (resamples,); NaN where it isn't defined.

    `times` comes from draw_clips. A clip that was drawn k times counts as k clips.
    """
    answers, truth = scores.p_unsafe >= threshold, scores.truth == 1

    def count(rows: np.ndarray) -> np.ndarray:
        return times @ np.bincount(scores.clip_of_row, weights=rows, minlength=times.shape[1])

    return {
        **_figures_of_counts(
            count(answers & truth), count(answers & ~truth), count(~answers & truth), count(~answers & ~truth)
        ),
        **_figures_of_ranks(scores, times),
        "brier": count((scores.p_unsafe - truth) ** 2) / count(np.ones(len(truth))),
        "calibration_error": _calibration_error(scores, times),
    }


def intervals(scores: Scores, *, threshold: float) -> dict[str, Interval | None]:
    """Return the 95 % interval of each figure; None where too few resamples define it."""
    times = draw_clips(int(scores.clip_of_row.max()) + 1)
    return {name: interval(values) for name, values in resampled_figures(scores, times, threshold=threshold).items()}


def interval(values: np.ndarray) -> Interval | None:
    """Return the 2.5th and the 97.5th percentile of the values that are defined, None where too few are."""
    defined = values[np.isfinite(values)]
    if len(defined) < LEAST_DEFINED * len(values):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def paired_intervals(
    scores: Scores, other: Scores, *, threshold: float, other_threshold: float
) -> dict[str, Interval | None]:
    """Return the 95 % intervals of how far the figures of `scores` are above those of `other`, on the same frames.

    Both are resampled together. Raises ValueError where the frames aren't the same.
    """
    if not (np.array_equal(scores.truth, other.truth) and np.array_equal(scores.clip_of_row, other.clip_of_row)):
        raise ValueError("the two are not of the same frames")
    times = draw_clips(int(scores.clip_of_row.max()) + 1)
    first = resampled_figures(scores, times, threshold=threshold)
    second = resampled_figures(other, times, threshold=other_threshold)
    return {name: interval(first[name] - second[name]) for name in first}


def mcnemar(right: np.ndarray, other_right: np.ndarray) -> dict[str, float]:
    """Test whether two classifiers are right equally often on the same clips, both arguments of shape (clips,).

    Returns how many clips either alone gets right and the exact two-sided p-value (McNemar 1947, by the binomial
    distribution): 1.0 where they never differ.
    """
    only_first, only_second = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p_value": p_value}


def _divide(above: np.ndarray, below: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), otherwise), where=below > 0)


def _figures_of_counts(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> Mapping[str, np.ndarray]:
    unsafe, safe = tp + fn, tn + fp
    both = (unsafe > 0) & (safe > 0)
    recall, recall_of_safe = _divide(tp, unsafe), _divide(tn, safe)
    f1, f1_of_safe = _divide(2 * tp, 2 * tp + fp + fn), _divide(2 * tn, 2 * tn + fp + fn)
    spread = np.sqrt((tp + fp) * unsafe * safe * (tn + fn))
    return {
        "accuracy": (tp + tn) / (unsafe + safe),
        "precision": _divide(tp, tp + fp, 0.0),
        "recall": recall,
        "f1": np.where(unsafe > 0, f1, np.nan),
        "macro_f1": np.where(both, (f1 + f1_of_safe) / 2, np.nan),
        "balanced_accuracy": (recall + recall_of_safe) / 2,
        "mcc": np.where(both, _divide(tp * tn - fp * fn, spread, 0.0), np.nan),
    }


def _figures_of_ranks(scores: Scores, times: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC and average precision, from the frames of each P(UNSAFE) that occurs, the highest first."""
    order = np.argsort(-scores.p_unsafe, kind="stable")
    ranked = scores.p_unsafe[order]
    begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    unsafe, clip_of_row = scores.truth[order] == 1, scores.clip_of_row[order]
    auroc, average_precision = [], []
    for part in _parts(times, len(ranked)):
        weights = part[:, clip_of_row]
        positives = np.add.reduceat(weights * unsafe, begins, axis=1)
        negatives = np.add.reduceat(weights * ~unsafe, begins, axis=1)
        above, false_above = positives.cumsum(axis=1), negatives.cumsum(axis=1)
        all_positives, all_negatives = above[:, -1], false_above[:, -1]
        ordered = (negatives * (above - positives / 2)).sum(axis=1)
        auroc.append(_divide(ordered, all_positives * all_negatives))
        precisions = np.divide(above, above + false_above, out=np.zeros(above.shape), where=above > 0)
        both = all_negatives > 0
        average_precision.append(np.where(both, _divide((positives * precisions).sum(axis=1), all_positives), np.nan))
    return {"auroc": np.concatenate(auroc), "average_precision": np.concatenate(average_precision)}


def _parts(times: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    step = max(1, _CELLS_AT_ONCE // frames)
    yield from (times[start : start + step] for start in range(0, len(times), step))


def _calibration_error(scores: Scores, times: np.ndarray) -> np.ndarray:
    bins, clips = calibration_bin(scores.p_unsafe), times.shape[1]
    gaps = np.zeros((int(bins.max()) + 1, clips))
    np.add.at(gaps, (bins, scores.clip_of_row), scores.p_unsafe - scores.truth)
    frames = times @ np.bincount(scores.clip_of_row, minlength=clips)
    return np.abs(times @ gaps.T).sum(axis=1) / frames
