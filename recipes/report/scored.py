"""A split's frames once they were scored: what figures, plots and predictions are made from. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.labels import LABELS
from data_prep.rows.frames import CAMERA
from recipes.metrics.class_ids import class_ids
from recipes.metrics.threshold import label_of


@dataclass(frozen=True)
class Scored:
    """n frames by clip and sample, with behaviour, camera, None for unknown, class id and P(UNSAFE), all of length n.

    The adapter answers UNSAFE from `threshold` on. `baselines`, by name, are P(UNSAFE) of the same frames by what the
    adapter is compared with, of shape (n,), None where one wasn't asked; these answer UNSAFE from 0.5 on. `prior` is
    the share of UNSAFE frames that was stated, for which all P(UNSAFE) and the threshold are; None where none was.
    """

    clips: Sequence[str]
    samples: Sequence[int]
    source_classes: Sequence[str]
    cameras: Sequence[str | None]
    truth: np.ndarray
    p_unsafe: np.ndarray
    threshold: float
    baselines: Mapping[str, np.ndarray | None]
    prior: float | None = None

    @classmethod
    def of(
        cls,
        rows: Any,
        p_unsafe: np.ndarray,
        baselines: Mapping[str, np.ndarray | None],
        *,
        threshold: float,
        prior: float | None = None,
    ) -> "Scored":
        """Join scores to the columns of their rows, each column read at once: one by one takes seconds."""
        clips, samples, source_classes, responses = (
            rows[name][:] for name in ("clip", "sample", "source_class", "response")
        )
        cameras = _cameras_of(rows, len(clips))
        return cls(clips, samples, source_classes, cameras, class_ids(responses), p_unsafe, threshold, baselines, prior)

    @property
    def labels(self) -> list[str]:
        """What each frame is."""
        return [LABELS[number] for number in self.truth]

    @property
    def answers(self) -> list[str]:
        """What the adapter answers. Raises InputError where a P(UNSAFE) is no number from 0 to 1."""
        return [label_of(p, self.threshold) for p in self.p_unsafe]

    @property
    def asked(self) -> dict[str, np.ndarray]:
        """The baselines that were asked."""
        return {name: scores for name, scores in self.baselines.items() if scores is not None}


def _cameras_of(rows: Any, count: int) -> Sequence[str | None]:
    """Return each row's camera. What was pushed by a version that knew none has no such column."""
    columns = rows if isinstance(rows, Mapping) else rows.column_names
    return rows[CAMERA][:] if CAMERA in columns else [None] * count
