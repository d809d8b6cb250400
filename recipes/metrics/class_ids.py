"""Class ids, of frames and of clips, and how often each is answered. Imports no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from data_prep.labels import LABELS, UNSAFE

POSITIVE = LABELS.index(UNSAFE)


def class_ids(responses: Sequence[str]) -> np.ndarray:
    """Return the class ids, of shape (n,), of labels: 0 for SAFE, 1 for UNSAFE."""
    return np.array([LABELS.index(response) for response in responses])


def mean_by_clip(p_unsafe: np.ndarray, truth: np.ndarray, clips: ArrayLike) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mean P(UNSAFE) and the class id of each clip, both of shape (clips,), in the order of the clips.

    The arguments are of length n: a frame's P(UNSAFE), its class id and its clip's name or number. None where a clip's
    frames bear both labels, as frames relabelled by hand may: such a clip has no label of its own.
    """
    _, clip_of_row = np.unique(np.asarray(clips), return_inverse=True)
    frames = np.bincount(clip_of_row)
    labels = np.bincount(clip_of_row, weights=truth) / frames
    if not np.isin(labels, [0, 1]).all():
        return None
    return np.bincount(clip_of_row, weights=p_unsafe) / frames, labels.astype(int)


def confusion_matrix(answers: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, int]]:
    """Count answers by true label: `matrix["UNSAFE"]["SAFE"]` are the UNSAFE frames that were answered SAFE."""
    counts = np.bincount(len(LABELS) * truth + answers, minlength=len(LABELS) ** 2).reshape(len(LABELS), -1)
    return {
        actual: {answer: int(counts[row, column]) for column, answer in enumerate(LABELS)}
        for row, actual in enumerate(LABELS)
    }
