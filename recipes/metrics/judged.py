"""A classifier judged on the frames of a split, and on their clips: figures, and what they are with other clips drawn.

What takes long, ranking the frames of each resample, is done once a classifier. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recipes.metrics.class_ids import mean_by_clip
from recipes.metrics.figures import resampled_figures
from recipes.metrics.intervals import LEAST_CLIPS, Interval, clips_behind, interval
from recipes.metrics.resampling import Resamples, Scores, draw_clips
from recipes.metrics.safety_metric import compute_figures


@dataclass(frozen=True)
class Sample:
    """Scores, answered UNSAFE from `threshold` on: each figure, and the same in each resample of the clips.

    `clips` is how many each interval comes from.
    """

    resamples: Resamples
    threshold: float
    figures: Mapping[str, float | None]
    drawn: Mapping[str, np.ndarray]
    clips: Mapping[str, int]

    @classmethod
    def of(cls, scores: Scores, *, threshold: float, prior: float | None = None) -> "Sample":
        """Compute the figures of scores, and draw their clips anew.

        With a `prior`, frames are weighed so that UNSAFE has that share.
        """
        return cls._answered(Resamples(scores, draw_clips(scores.clips), prior), threshold)

    @classmethod
    def _answered(cls, resamples: Resamples, threshold: float) -> "Sample":
        scores, prior = resamples.scores, resamples.prior
        return cls(
            resamples,
            threshold,
            figures=compute_figures(scores.p_unsafe, scores.truth, threshold=threshold, prior=prior),
            drawn=resampled_figures(resamples, threshold),
            clips=clips_behind(scores, threshold=threshold, prior=prior),
        )

    @property
    def scores(self) -> Scores:
        """What was judged."""
        return self.resamples.scores

    def at(self, threshold: float) -> "Sample":
        """Return the same scores, answered from another threshold on."""
        return self if threshold == self.threshold else self._answered(self.resamples, threshold)

    def intervals(self) -> dict[str, Interval | None]:
        """Return the 95 % interval of each figure; None where too few resamples define it, or one clip gives it."""
        return {name: self._interval(name, self.drawn[name]) for name in self.figures}

    def results(self) -> dict[str, Any]:
        """Return n, the figures and their intervals, as report.json holds them."""
        return {"n": len(self.scores.truth), **self.figures, "intervals": self.intervals()}

    def above(self, other: "Sample") -> dict[str, Any]:
        """Return each figure of this and of another on the same frames, their difference and its paired interval.

        Both are resampled together. Raises ValueError where the frames aren't the same.
        """
        one, two = self.scores, other.scores
        if not (np.array_equal(one.truth, two.truth) and np.array_equal(one.clip_of_row, two.clip_of_row)):
            raise ValueError("the two are not of the same frames")
        found: dict[str, Any] = dict.fromkeys(self.figures)
        for name, first in self.figures.items():
            second = other.figures[name]
            if first is not None and second is not None:
                bounds = self._interval(name, self.drawn[name] - other.drawn[name], other)
                found[name] = {"first": first, "second": second, "value": first - second, "interval": bounds}
        return found

    def _interval(self, name: str, values: np.ndarray, *others: "Sample") -> Interval | None:
        fewest = min(each.clips[name] for each in (self, *others))
        return interval(values) if fewest >= LEAST_CLIPS else None


@dataclass(frozen=True)
class Judged:
    """A classifier on single frames, and on whole clips, each judged by the mean of its frames' P(UNSAFE).

    `clip` is None where clips have no label of their own; see mean_by_clip.
    """

    frame: Sample
    clip: Sample | None

    @classmethod
    def of(
        cls,
        p_unsafe: np.ndarray,
        truth: np.ndarray,
        clips: ArrayLike,
        *,
        threshold: float,
        prior: float | None = None,
    ) -> "Judged":
        """Judge P(UNSAFE) of n frames, given their class ids and their clips, by name or number."""
        of_clips = mean_by_clip(p_unsafe, truth, clips)
        return cls(
            Sample.of(Scores.of(p_unsafe, truth, clips), threshold=threshold, prior=prior),
            Sample.of(clips_as_frames(*of_clips), threshold=threshold, prior=prior) if of_clips else None,
        )

    def at(self, threshold: float) -> "Judged":
        """Return the same classifier, answering UNSAFE from another threshold on."""
        return Judged(self.frame.at(threshold), self.clip.at(threshold) if self.clip else None)

    def results(self) -> dict[str, Any]:
        """Return the figures of frames and of clips, as report.json holds them."""
        return {"frame": self.frame.results(), "clip": self.clip.results() if self.clip else None}


def clips_as_frames(p_unsafe: np.ndarray, truth: np.ndarray) -> Scores:
    """Return the scores of clips, by mean_by_clip, as frames that are each of a clip of their own."""
    return Scores(p_unsafe, truth, np.arange(len(truth)))
