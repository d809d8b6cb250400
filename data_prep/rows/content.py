"""What a data set holds, as hashes, counts and words, whatever its files look like."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_prep.labels import DATASET_SPLITS, LABELS
from data_prep.rows.frames import CAMERA, COLUMNS, Frame

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def _hashed(digest: str, columns: Mapping[str, Any]) -> list[str | int]:
    """Return what a row's hash is made of: its camera only where it is known, so that older hashes stand."""
    camera = columns.get(CAMERA)
    return [digest, *(columns[name] for name in COLUMNS), *([] if camera is None else [camera])]


def _frame_rows(frames: Sequence[Frame], digests: Sequence[str]) -> Iterator[list[str | int]]:
    for frame, digest in zip(frames, digests, strict=True):
        yield _hashed(digest, frame.columns)


def _dataset_rows(dataset: "Dataset") -> Iterator[list[str | int]]:
    from datasets import Image

    for row in dataset.cast_column("image", Image(decode=False)):
        digest = hashlib.sha256(row["image"]["bytes"]).hexdigest()
        yield _hashed(digest, row)


def _rows_hash(rows: Iterator[list[str | int]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def frames_hash(frames: Sequence[Frame], digests: Sequence[str]) -> str:
    """Return the `split_hash` that a split built of these frames has; `digests` are their images' SHA-256."""
    return _rows_hash(_frame_rows(frames, digests))


def split_hash(dataset: "Dataset") -> str:
    """Return the SHA-256 of one split: row by row its image's SHA-256, prompt, response, clip, sample, source class.

    The camera comes last, where it is known.
    """
    return _rows_hash(_dataset_rows(dataset))


def combine_split_hashes(hashes: dict[str, str]) -> str:
    """Return the SHA-256 that stands for a whole data set, from its splits' names and `split_hash`es."""
    lines = [f"{split} {hashes[split]}\n" for split in DATASET_SPLITS if split in hashes]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def content_hash(dataset: "DatasetDict") -> str:
    """Return the SHA-256 of all that a model sees and all that a report counts, split by split and row by row.

    It is the same for a data folder, for what was pushed from it and for any copy, whatever the files look like.
    """
    return combine_split_hashes({split: split_hash(dataset[split]) for split in dataset})


@dataclass(frozen=True)
class SplitCounts:
    """How much one split holds; `labels` counts its frames by answer. As a string it says so in words."""

    frames: int
    clips: int
    labels: dict[str, int]

    def __str__(self) -> str:
        labels = ", ".join(f"{label} {count}" for label, count in self.labels.items())
        return f"{self.frames} frames of {self.clips} clips ({labels})"


def count_splits(dataset: "DatasetDict") -> dict[str, SplitCounts]:
    """Count frames, clips and answers of each split."""
    counts = {}
    for split in dataset:
        answers = Counter(dataset[split]["response"][:])
        labels = {label: answers[label] for label in LABELS}
        counts[split] = SplitCounts(len(dataset[split]), len(dataset[split].unique("clip")), labels)
    return counts


def summary(dataset: "DatasetDict") -> str:
    """Say in one line what each split holds: `train 40 frames of 8 clips (SAFE 10, UNSAFE 30); validation …`."""
    return "; ".join(f"{split} {counts}" for split, counts in count_splits(dataset).items())
