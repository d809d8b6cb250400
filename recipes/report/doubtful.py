"""Which training frames and clips have a doubtful label, in order, each with the reason. Imports no torch."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.hub.source import FramesSource
from data_prep.labels import LABELS, SOURCE_CLASSES, TRAIN
from data_prep.rows.joining import image_of
from recipes.metrics.class_ids import POSITIVE, class_ids
from recipes.metrics.doubt import by_row, doubt_of_rows, later_margin, of_others
from recipes.metrics.seen_rows import SeenRows

TWIN = "identical to one of the other label"
NEVER = "learned in no epoch"
OTHERS = "its clip's other frames say otherwise"
FORGOTTEN = "learned and forgotten"
UNLIKE = "less sure than its clip's other frames"
LATE = "learned in epoch"
PLAIN = "learned at once"
NOT_SEEN = "not seen"
_READ_AT_ONCE = 100  # frames
_LESS_SURE = 2.0  # nats; odds of one to seven
_LABEL_OF = {source_class.folder: source_class.label for source_class in SOURCE_CLASSES}


def ranked_frames(rows: Any, seen: SeenRows, twins: Sequence[bool]) -> list[dict[str, Any]]:
    """Return a record of each training row, the one with the most doubtful label first, those never seen last.

    `twins` says of each row whether its picture stands under the other label, too. Records name the frame's `image` in
    its data folder, and hold the log-odds of its label at each time that it was seen, and their later `margin`.
    """
    clips, samples, classes, labels = (rows[name][:] for name in ("clip", "sample", "source_class", "response"))
    log_odds = by_row(seen, len(clips))
    known = np.flatnonzero(~np.isnan(log_odds).all(axis=1))
    clip_of_row = np.unique(np.asarray(clips)[known], return_inverse=True)[1]
    twin = np.asarray(twins, dtype=bool)
    doubt, margin = np.full(len(clips), -np.inf), np.full(len(clips), np.nan)
    doubt[known], margin[known] = doubt_of_rows(log_odds[known], clip_of_row), later_margin(log_odds[known])
    said = reasons_of(log_odds[known], clip_of_row, class_ids(labels)[known], twin[known])
    reasons = dict(zip(known.tolist(), said, strict=True))
    return [
        {
            "kind": "frame",
            "rank": rank,
            "image": image_of(clips[row], samples[row], split=TRAIN, label=_LABEL_OF.get(classes[row], labels[row])),
            "row": row,
            "clip": clips[row],
            "sample": samples[row],
            "source_class": classes[row],
            "label": labels[row],
            "margin": None if np.isnan(margin[row]) else round(float(margin[row]), 4),
            "log_odds": [round(float(value), 4) for value in log_odds[row] if not np.isnan(value)],
            "reason": reasons.get(row, NOT_SEEN),
        }
        for rank, row in enumerate(np.lexsort((-doubt, ~twin)).tolist(), start=1)
    ]


def reasons_of(log_odds: np.ndarray, clips: np.ndarray, truth: np.ndarray, twins: np.ndarray) -> list[str]:
    """Say of each row in a few words what is doubtful about its label, as far as anything is.

    `log_odds`, of rows that were seen, and `clips` are as in doubt.py; `truth` are the labels' class ids.
    """
    margin = later_margin(log_odds)
    sign = np.where(truth == POSITIVE, 1, -1)
    others = of_others(sign * margin, clips) * sign  # of this row's label, as the other frames have it
    right = log_odds > 0
    times = (~np.isnan(log_odds)).sum(axis=1)
    said = []
    for row in range(len(margin)):
        reasons = [TWIN] if twins[row] else []
        if not right[row].any():
            reasons.append(NEVER)
        elif not right[row, times[row] - 1]:
            reasons.append(FORGOTTEN)
        elif (first := int(right[row].argmax())) > 0:
            reasons.append(f"{LATE} {first + 1}")
        if others[row] < 0:
            reasons.append(OTHERS)
        elif others[row] - margin[row] > _LESS_SURE:
            reasons.append(UNLIKE)
        said.append("; ".join(reasons) or PLAIN)
    return said


def ranked_clips(frames: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a record of each clip of ranked_frames', the one of the lowest mean log-odds first.

    All times count: a clip that is wrong as a whole is learned by heart in the later ones.
    """
    by_clip: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for frame in frames:
        by_clip[frame["clip"]].append(frame)
    margins = {
        clip: float(np.mean([np.mean(frame["log_odds"]) for frame in of if frame["log_odds"]] or [np.inf]))
        for clip, of in by_clip.items()
    }
    order = sorted(by_clip, key=lambda clip: margins[clip])
    return [
        {
            "kind": "clip",
            "rank": rank,
            "folder": by_clip[clip][0]["image"].rpartition("/")[0],
            "clip": clip,
            "source_class": by_clip[clip][0]["source_class"],
            "labels": {label: sum(frame["label"] == label for frame in by_clip[clip]) for label in LABELS},
            "reason": _reason_of_clip(by_clip[clip]),
        }
        for rank, clip in enumerate(order, start=1)
    ]


def _reason_of_clip(frames: Sequence[Mapping[str, Any]]) -> str:
    for reason in (TWIN, NEVER, FORGOTTEN, UNLIKE):
        if count := sum(reason in frame["reason"] for frame in frames):
            return f"{count} of its {len(frames)} frames {reason}"
    return PLAIN


def twins_of_rows(source: FramesSource) -> list[bool]:
    """Say of each training row whether its very picture stands under the other label, in any split."""
    digests: dict[str, list[str]] = {}
    labels_of: dict[str, set[str]] = defaultdict(set)
    for split in source.dataset:
        rows = source.rows(split)
        digests[split] = [
            hashlib.sha256(content).hexdigest()
            for part in rows.select_columns("image").with_format("arrow").iter(_READ_AT_ONCE)
            for content in part["image"].combine_chunks().field("bytes").to_pylist()
        ]
        for digest, label in zip(digests[split], rows["response"][:], strict=True):
            labels_of[digest].add(label)
    return [len(labels_of[digest]) > 1 for digest in digests[TRAIN]]
