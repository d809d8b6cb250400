"""A data set of very many tiny frames, for the benchmark of a training's start."""

import io
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, NamedSplit
from datasets.arrow_writer import ArrowWriter
from PIL import Image

from data_prep.hub.source import FramesSource
from data_prep.labels import LABELS, PROMPT, TEST, TRAIN, VALIDATION
from data_prep.rows.dataset import dataset_columns

SIDE, FRAME_BYTES, FRAMES_PER_CLIP, ROWS_AT_ONCE = 56, 1000, 20, 1000
CONTENT = "0" * 64  # stands for the content hash, which the data set's own check finds out


def make_rows(out: Path, rows: int) -> None:
    """Write the splits as Arrow files, a tenth for validation, unless they are there."""
    sizes = {TRAIN: rows - rows // 10, VALIDATION: rows // 10, TEST: len(LABELS)}
    first = 0
    for split, size in sizes.items():
        path = arrow_file(out, split)
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            with ArrowWriter(path=str(unfinished), features=dataset_columns()) as writer:
                for begin in range(first, first + size, ROWS_AT_ONCE):
                    writer.write_batch(made_rows(range(begin, min(begin + ROWS_AT_ONCE, first + size))))
                writer.finalize()
            unfinished.rename(path)
        first += size


def arrow_file(out: Path, split: str) -> Path:
    """Return where a split's rows lie."""
    return out / f"{split}.arrow"


def made_rows(numbers: range) -> dict[str, list[Any]]:
    """Return the columns of some rows. A frame's bytes are a picture's and its number, so that each is its own."""
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "gray").save(file, "JPEG")
    picture = file.getvalue()
    return {
        "image": [
            {"bytes": picture + str(n).encode().rjust(FRAME_BYTES - len(picture)), "path": None} for n in numbers
        ],
        "prompt": [PROMPT for _ in numbers],
        "response": [LABELS[n % len(LABELS)] for n in numbers],
        "clip": [f"clip{n // FRAMES_PER_CLIP}" for n in numbers],
        "sample": [n % FRAMES_PER_CLIP for n in numbers],
        "source_class": ["0" for _ in numbers],
        "camera": [None for _ in numbers],
    }


def open_rows(out: Path) -> FramesSource:
    """Return the made data set."""
    splits = {
        split: Dataset.from_file(str(arrow_file(out, split)), split=NamedSplit(split))
        for split in (TRAIN, VALIDATION, TEST)
    }
    return FramesSource(DatasetDict(splits), "made", None, CONTENT)
