"""Where a report lies, and what lies in it frame by frame."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.clips.records import frame_name
from data_prep.hub.source import FramesSource
from data_prep.rows.dataset import TEST, TRAIN
from recipes.adapter.safety_record import SafetyRecord


def folder_of_report(
    folder: Path,
    record: SafetyRecord,
    source: FramesSource,
    split: str,
    *,
    prior: float | None = None,
    blank: bool = False,
) -> Path:
    """Return `<adapter>/eval` for the test split of the adapter's own data, a folder below it for anything else.

    What was evaluated for a stated prior, or on blank frames, lies in a folder of its own below either.
    """
    found = folder / "eval"
    if split != TEST or source.content_hash != record.dataset_hash:
        found /= f"{source.id.replace('/', '--').strip('-.')}-{source.content_hash[:8]}-{split}"
    if blank:
        found /= "blank-frames"
    return found if prior is None else found / f"prior-{prior:g}"


def predictions(
    rows: Mapping[str, Sequence[Any]], p_unsafe: np.ndarray, answers: Sequence[str], split: str
) -> list[dict[str, Any]]:
    """Return one record a frame: where it comes from, its label, P(UNSAFE) and the answer.

    `image` is the frame's path below its data folder, as extract_frames.py lays it out.
    """
    columns = zip(rows["clip"], rows["sample"], rows["source_class"], rows["response"], p_unsafe, answers, strict=True)
    folder = TEST if split == TEST else TRAIN  # validation is a part of the published train split
    return [
        {
            "image": f"frames/{folder}/{label.lower()}/{clip}/{frame_name(sample)}",
            "clip": clip,
            "sample": sample,
            "source_class": source_class,
            "label": label,
            "p_unsafe": float(p),
            "answer": answer,
        }
        for clip, sample, source_class, label, p, answer in columns
    ]
