"""How far figures would move with other clips: a bootstrap over clips, and a paired test. Imports no torch.

Frames of one clip are near-copies, so clips are drawn anew, each with all its frames (the cluster bootstrap: Field and
Welsh, "Bootstrapping clustered data", 2007). Intervals are the 2.5th to the 97.5th percentile of the drawn figures. The
calibration error's lies high: drawing clips anew adds noise to every bin, and noise only adds to it.

Where a share of UNSAFE frames is stated, it is a fact about the plant and not one more thing that varies: frames are
weighed anew in each resample, so that it holds in each.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from recipes.metrics.figures import NEEDS_BOTH_LABELS, NEEDS_UNSAFE, calibration_bin

RESAMPLES = 2000
SEED = 0
LEAST_DEFINED = 0.5  # of the resamples: below it, an interval would tell of the others alone
LEAST_CLIPS = 2  # one clip drawn anew is the same clip
_CELLS_AT_ONCE = 200_000  # resamples times frames that are ranked together: temporaries that a core's cache holds

Interval = tuple[float, float]


@dataclass(frozen=True)
class Scores:
    """P(UNSAFE) of n frames, their class ids and the numbers of their clips, from 0 on, all of shape (n,)."""

    p_unsafe: np.ndarray
    truth: np.ndarray
    clip_of_row: np.ndarray

    @classmethod
    def of(cls, p_unsafe: np.ndarray, truth: np.ndarray, clips: ArrayLike) -> "Scores":
        """Number the clips by their names, or by numbers that may have gaps."""
        return cls(p_unsafe, truth, np.unique(np.asarray(clips), return_inverse=True)[1])

    @property
    def clips(self) -> int:
        """Return how many clips the frames are of."""
        return int(self.clip_of_row.max()) + 1

    def by_clip(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of n values over each clip's SAFE frames and over its UNSAFE ones, of shape (clips, 2)."""
        place = 2 * self.clip_of_row + self.truth
        return np.bincount(place, weights=values, minlength=2 * self.clips).reshape(-1, 2)


@lru_cache(maxsize=2)
def draw_clips(clips: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Return how often each of so many clips is in each resample, of shape (resamples, clips), not to be changed.

    The last ones are kept: all classifiers of a report are judged on the same resamples.
    """
    rng, shares = np.random.default_rng(seed), np.full(clips, 1 / clips)
    times = np.empty((resamples, clips), np.int32)
    for row in times:
        row[:] = rng.multinomial(clips, shares)
    times.setflags(write=False)
    return times


def resampled_figures(
    scores: Scores, times: np.ndarray, *, threshold: float, prior: float | None = None
) -> dict[str, np.ndarray]:
    """Return each figure of figures.py in each resample, of shape (resamples,); NaN where it isn't defined.

    `times` comes from draw_clips. A clip that was drawn k times counts as k clips. With a `prior`, UNSAFE frames weigh
    that share of each resample.
    """
    return {
        **resampled_answers(scores, times, threshold=threshold, prior=prior),
        **resampled_scores(scores, times, prior=prior),
    }


def resampled_answers(
    scores: Scores, times: np.ndarray, *, threshold: float, prior: float | None = None
) -> dict[str, np.ndarray]:
    """Return those of resampled_figures that a threshold decides."""
    frames, called = (scores.by_clip(rows) for rows in (np.ones(len(scores.truth)), scores.p_unsafe >= threshold))
    safe, unsafe, fp, tp = _sums(times, np.concatenate([frames, called], axis=1)).T
    recall, recall_of_safe = _divide(tp, unsafe), _divide(safe - fp, safe)
    of_safe, of_unsafe = _weights(safe, unsafe, prior)
    figures = _figures_of_counts(of_unsafe * tp, of_safe * fp, of_unsafe * (unsafe - tp), of_safe * (safe - fp))
    return {**figures, "recall": recall, "balanced_accuracy": (recall + recall_of_safe) / 2}


def resampled_scores(scores: Scores, times: np.ndarray, *, prior: float | None = None) -> dict[str, np.ndarray]:
    """Return those of resampled_figures that P(UNSAFE) alone decides."""
    bins = calibration_bin(scores.p_unsafe)
    errors = scores.p_unsafe - scores.truth
    columns = [scores.by_clip(np.ones(len(errors))), scores.by_clip(errors**2)]
    columns += [scores.by_clip(np.where(bins == each, errors, 0.0)) for each in np.unique(bins)]
    sums = _sums(times, np.concatenate(columns, axis=1)).reshape(len(times), -1, 2)
    of_class = np.stack(_weights(sums[:, 0, 0], sums[:, 0, 1], prior), axis=1)
    weighed = (sums * of_class[:, None]).sum(axis=2)
    return {
        **_figures_of_ranks(scores, times, prior),
        "brier": weighed[:, 1] / weighed[:, 0],
        "calibration_error": np.abs(weighed[:, 2:]).sum(axis=1) / weighed[:, 0],
    }


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


def _weights(safe: np.ndarray, unsafe: np.ndarray, prior: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return what a SAFE and an UNSAFE frame weigh in each resample; NaN where a prior meets one label alone."""
    if prior is None:
        return np.ones(len(safe)), np.ones(len(unsafe))
    both = (safe > 0) & (unsafe > 0)
    return _divide(np.where(both, 1 - prior, np.nan), safe), _divide(np.where(both, prior, np.nan), unsafe)


def _figures_of_counts(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> Mapping[str, np.ndarray]:
    unsafe, safe = tp + fn, tn + fp
    both = (unsafe > 0) & (safe > 0)
    f1, f1_of_safe = _divide(2 * tp, 2 * tp + fp + fn), _divide(2 * tn, 2 * tn + fp + fn)
    spread = np.sqrt((tp + fp) * unsafe * safe * (tn + fn))
    return {
        "accuracy": (tp + tn) / (unsafe + safe),
        "precision": np.where(np.isnan(tp + fp), np.nan, _divide(tp, tp + fp, 0.0)),
        "f1": np.where(unsafe > 0, f1, np.nan),
        "macro_f1": np.where(both, (f1 + f1_of_safe) / 2, np.nan),
        "mcc": np.where(both, _divide(tp * tn - fp * fn, spread, 0.0), np.nan),
    }


def _figures_of_ranks(scores: Scores, times: np.ndarray, prior: float | None) -> dict[str, np.ndarray]:
    """AUROC and average precision, walking down the P(UNSAFE) that UNSAFE frames have, the highest first.

    At each such level: how many UNSAFE frames lie there or above, how many SAFE ones there or above, how many above.
    """
    safe, unsafe = (np.sort(scores.p_unsafe[scores.truth == label]) for label in (0, 1))
    if not (len(safe) and len(unsafe)):
        return dict.fromkeys(("auroc", "average_precision"), np.full(len(times), np.nan))
    levels = np.unique(unsafe)[::-1]
    up_to = len(unsafe) - np.searchsorted(unsafe, levels, side="left")
    false_up_to, false_above = (len(safe) - np.searchsorted(safe, levels, side=side) for side in ("left", "right"))
    clips_of_safe, clips_of_unsafe = (_clips_by_rank(scores, label) for label in (0, 1))
    auroc, average_precision = [], []
    for part in _parts(times, max(len(scores.truth), times.shape[1])):
        found, false = _running(part, clips_of_unsafe).take(up_to, axis=1), _running(part, clips_of_safe)
        all_found, all_false = found[:, -1], false[:, -1]
        here, at_least = np.diff(found, prepend=0.0), false.take(false_up_to, axis=1)
        above = at_least if np.array_equal(false_above, false_up_to) else false.take(false_above, axis=1)
        ordered = all_found * all_false - np.einsum("rl,rl->r", here, at_least + above) / 2
        auroc.append(_divide(ordered, all_found * all_false))
        of_safe, of_unsafe = _weights(all_false, all_found, prior)
        at_least *= (of_safe / of_unsafe)[:, None]
        at_least += found
        precisions = np.divide(found, at_least, out=at_least, where=found > 0)
        total = np.einsum("rl,rl->r", here, np.where(found > 0, precisions, 0.0))
        average_precision.append(np.where(all_false > 0, _divide(total, all_found), np.nan))
    return {"auroc": np.concatenate(auroc), "average_precision": np.concatenate(average_precision)}


def _clips_by_rank(scores: Scores, label: int) -> np.ndarray:
    """Return the clips of a label's frames, that of the highest P(UNSAFE) first."""
    rows = np.flatnonzero(scores.truth == label)
    return scores.clip_of_row[rows[np.argsort(-scores.p_unsafe[rows], kind="stable")]]


def _running(times: np.ndarray, clip_of_rank: np.ndarray) -> np.ndarray:
    """Return how many frames each resample has among the first k, for k from 0 on, of shape (resamples, frames + 1)."""
    running = np.zeros((len(times), len(clip_of_rank) + 1))
    np.cumsum(times.take(clip_of_rank, axis=1), axis=1, out=running[:, 1:])
    return running


def _sums(times: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return each resample's sums of columns of shape (clips, columns), of shape (resamples, columns)."""
    return np.concatenate([part @ columns for part in _parts(times, times.shape[1])])


def _parts(times: np.ndarray, cells: int) -> Iterator[np.ndarray]:
    """Return the resamples in parts of so many that a few of `cells` fit a core's cache, in fp64, exact for counts."""
    step = max(1, _CELLS_AT_ONCE // cells)
    yield from (times[start : start + step].astype(np.float64) for start in range(0, len(times), step))
