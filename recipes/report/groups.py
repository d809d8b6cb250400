"""Accuracy by behaviour and by camera. Imports no torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.clips.records import natural_key
from data_prep.labels import LABELS, SAFE, SOURCE_CLASSES
from recipes.metrics.intervals import LEAST_CLIPS, at_most_without_error, interval
from recipes.metrics.resampling import draw_clips

_PUBLISHED = {source_class.folder: source_class.label for source_class in SOURCE_CLASSES}


def per_source_class(right: np.ndarray, clips: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return accuracy_of by source class, with its label: the published eight in their order, then others by label.

    `right`, `clips` and `truth` say of n frames whether they were answered right, which clip they are of by number,
    and their class id; `names` are their source classes.
    """
    found = np.asarray(names)
    first = dict(zip(found[::-1].tolist(), truth[::-1].tolist(), strict=True))
    own = {name: LABELS[number] for name, number in first.items() if name not in _PUBLISHED}
    ordered = sorted(own, key=lambda name: (own[name] == SAFE, natural_key(name)))
    label_of = {**_PUBLISHED, **{name: own[name] for name in ordered}}
    return {
        name: {"label": label, **accuracy_of(right[found == name], clips[found == name])}
        for name, label in label_of.items()
        if name in first
    }


def per_camera(
    right: np.ndarray, clips: np.ndarray, truth: np.ndarray, names: Sequence[str | None]
) -> dict[str, Any] | None:
    """Return accuracy_of by camera, with its frames by label; None where no frame's camera is known.

    Frames of an unknown camera are in no row.
    """
    cameras = sorted({name for name in names if name is not None}, key=natural_key)
    found = np.asarray(["" if name is None else name for name in names])
    table = {}
    for camera in cameras:
        rows = found == camera
        labels = {label: int((truth[rows] == number).sum()) for number, label in enumerate(LABELS)}
        table[camera] = {"labels": labels, **accuracy_of(right[rows], clips[rows])}
    return table or None


def accuracy_of(right: np.ndarray, clips: np.ndarray) -> dict[str, Any]:
    """Return the accuracy of some frames, with the interval from a bootstrap over their clips.

    The interval of a single clip is None. Where no frame was answered wrong, `error_at_most` is which share of clips
    may go wrong all the same.
    """
    _, clip_of_row = np.unique(clips, return_inverse=True)
    frames = np.bincount(clip_of_row)
    times = draw_clips(len(frames))
    accuracy = times @ np.bincount(clip_of_row, weights=right) / (times @ frames)
    return {
        "n": len(right),
        "clips": len(frames),
        "accuracy": float(right.mean()),
        "interval": interval(accuracy) if len(frames) >= LEAST_CLIPS else None,
        "error_at_most": at_most_without_error(len(frames)) if right.all() else None,
    }
