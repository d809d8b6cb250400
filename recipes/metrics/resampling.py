"""Clips drawn anew, and what figures are computed from in each resample of them. Imports no torch.

Frames of one clip are near-copies, so clips are drawn anew, each with all its frames (the cluster bootstrap: Field and
Welsh, "Bootstrapping clustered data", 2007).

Where a share of UNSAFE frames is stated, it is a fact about the plant and not one more thing that varies: frames are
weighed anew in each resample, so that it holds in each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from recipes.metrics.calibration import calibration_bin

RESAMPLES = 2000
SEED = 0
_CELLS_AT_ONCE = 200_000  # resamples times frames that are ranked together: temporaries that a core's cache holds


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


class Counts(NamedTuple):
    """Frames in each resample, counted or weighed: UNSAFE is the positive class, and each has shape (resamples,)."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray


class Errors(NamedTuple):
    """The mean squared and the calibration error in each resample, of shape (resamples,)."""

    squared: np.ndarray
    calibration: np.ndarray


class Ranking(NamedTuple):
    """How well P(UNSAFE) ranks the frames of each resample, of shape (resamples,)."""

    auroc: np.ndarray
    average_precision: np.ndarray


@dataclass(frozen=True)
class Resamples:
    """Scores whose clips were drawn anew; what a resample doesn't define is NaN.

    `times` comes from draw_clips. A clip that was drawn k times counts as k clips. With a `prior`, UNSAFE frames weigh
    that share of each resample.
    """

    scores: Scores
    times: np.ndarray
    prior: float | None = None

    @cached_property
    def errors(self) -> Errors:
        """How far P(UNSAFE) is from what is so."""
        scores = self.scores
        bins, errors = calibration_bin(scores.p_unsafe), scores.p_unsafe - scores.truth
        columns = [scores.by_clip(np.ones(len(errors))), scores.by_clip(errors**2)]
        columns += [scores.by_clip(np.where(bins == each, errors, 0.0)) for each in np.unique(bins)]
        sums = _sums(self.times, np.concatenate(columns, axis=1)).reshape(len(self.times), -1, 2)
        of_class = np.stack(_weights(sums[:, 0, 0], sums[:, 0, 1], self.prior), axis=1)
        weighed = (sums * of_class[:, None]).sum(axis=2)
        return Errors(weighed[:, 1] / weighed[:, 0], np.abs(weighed[:, 2:]).sum(axis=1) / weighed[:, 0])

    @cached_property
    def ranking(self) -> Ranking:
        """Walk down the P(UNSAFE) that UNSAFE frames have, the highest first.

        At each such level: how many UNSAFE frames lie there or above, how many SAFE ones there or above, how many
        above.
        """
        scores, times = self.scores, self.times
        safe, unsafe = (np.sort(scores.p_unsafe[scores.truth == label]) for label in (0, 1))
        if not (len(safe) and len(unsafe)):
            return Ranking(*[np.full(len(times), np.nan)] * 2)
        levels = np.unique(unsafe)[::-1]
        up_to = len(unsafe) - np.searchsorted(unsafe, levels, side="left")
        false_up_to, false_above = (len(safe) - np.searchsorted(safe, levels, side=side) for side in ("left", "right"))
        clips_of_safe, clips_of_unsafe = (_clips_by_rank(scores, label) for label in (0, 1))
        parts = []
        for part in _parts(times, max(len(scores.truth), times.shape[1])):
            found, false = _running(part, clips_of_unsafe).take(up_to, axis=1), _running(part, clips_of_safe)
            at_least = false.take(false_up_to, axis=1)
            above = at_least if np.array_equal(false_above, false_up_to) else false.take(false_above, axis=1)
            parts.append(_ranked(found, at_least, above, false[:, -1], self.prior))
        return Ranking(*map(np.concatenate, zip(*parts, strict=True)))


@dataclass(frozen=True)
class AnsweredResamples:
    """Resamples, and what comes of them where UNSAFE is answered from `threshold` on."""

    drawn: Resamples
    threshold: float

    @cached_property
    def counts(self) -> Counts:
        """Frames as they are, whatever the prior."""
        scores = self.drawn.scores
        rows = (np.ones(len(scores.truth)), scores.p_unsafe >= self.threshold)
        columns = np.concatenate([scores.by_clip(each) for each in rows], axis=1)
        safe, unsafe, fp, tp = _sums(self.drawn.times, columns).T
        return Counts(tp, fp, unsafe - tp, safe - fp)

    @cached_property
    def weighed(self) -> Counts:
        """Frames weighed for the prior; as they are without one."""
        tp, fp, fn, tn = self.counts
        of_safe, of_unsafe = _weights(tn + fp, tp + fn, self.drawn.prior)
        return Counts(of_unsafe * tp, of_safe * fp, of_unsafe * fn, of_safe * tn)


def divide(above: np.ndarray, below: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """Return a quotient where what it is divided by is positive, and `otherwise` elsewhere."""
    return np.divide(above, below, out=np.full(len(above), otherwise), where=below > 0)


def _weights(safe: np.ndarray, unsafe: np.ndarray, prior: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return what a SAFE and an UNSAFE frame weigh in each resample; NaN where a prior meets one label alone."""
    if prior is None:
        return np.ones(len(safe)), np.ones(len(unsafe))
    both = (safe > 0) & (unsafe > 0)
    return divide(np.where(both, 1 - prior, np.nan), safe), divide(np.where(both, prior, np.nan), unsafe)


def _ranked(
    found: np.ndarray, at_least: np.ndarray, above: np.ndarray, all_false: np.ndarray, prior: float | None
) -> Ranking:
    """Return the ranking of some resamples from the frames at each level: UNSAFE, SAFE, and SAFE ones above it.

    The first three have shape (resamples, levels), `all_false`, how many SAFE frames there are, (resamples,). What
    stands in `at_least` is lost.
    """
    all_found = found[:, -1]
    here = np.diff(found, prepend=0.0)
    ordered = all_found * all_false - np.einsum("rl,rl->r", here, at_least + above) / 2
    of_safe, of_unsafe = _weights(all_false, all_found, prior)
    at_least *= (of_safe / of_unsafe)[:, None]
    at_least += found
    precisions = np.divide(found, at_least, out=at_least, where=found > 0)
    total = np.einsum("rl,rl->r", here, np.where(found > 0, precisions, 0.0))
    return Ranking(divide(ordered, all_found * all_false), np.where(all_false > 0, divide(total, all_found), np.nan))


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
