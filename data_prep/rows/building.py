"""The rows of both splits, built from the clips' records and written with the audit of those clips."""

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.clips.audit import AUDIT_FILE, SCHEMA_VERSION
from data_prep.clips.folders import frame_folders, has_all_frames
from data_prep.clips.jsonl import CLIPS_FILE, read_finished_clips
from data_prep.clips.records import Clip, earlier_in_words
from data_prep.errors import InputError
from data_prep.files import as_json, write_together
from data_prep.labels import LABELS, PROMPT, SPLITS, TEST, TRAIN, rows_file
from data_prep.rows.jsonl import Row, as_jsonl
from data_prep.rows.left_out import LeftOut

_AGAIN = "run data_prep/extract_frames.py again"


def read_extracted_clips(data: Path) -> list[Clip]:
    """Read a data folder's clips, once the extraction is through.

    Raises InputError as `read_finished_clips` does, and where an earlier version extracted some of them.
    """
    clips = read_finished_clips(data / CLIPS_FILE)
    if earlier := sum(clip.is_of_earlier_extractor for clip in clips):
        raise InputError(f"{data / CLIPS_FILE}: {earlier_in_words(earlier)}; {_AGAIN}")
    return clips


def check_frames(data: Path, clips: list[Clip]) -> None:
    """Raise InputError unless the records and the folders of frames stand for each other, one to one."""
    recorded = {unicodedata.normalize("NFC", clip.folder) for clip in clips if clip.has_frames}
    for folder in frame_folders(data):
        if unicodedata.normalize("NFC", folder) not in recorded:  # some file systems list another form than was written
            raise InputError(f"{folder}: frames without a record in {CLIPS_FILE}; move them away, or {_AGAIN}")
    for clip in clips:
        if clip.has_frames and not has_all_frames(data, clip):
            raise InputError(f"{clip.folder}: not the {clip.frames} frames that {CLIPS_FILE} records; {_AGAIN}")


def rows_by_split(
    clips: list[Clip], left_out: list[dict[str, Any]], listed: Sequence[LeftOut] = ()
) -> dict[str, list[Row]]:
    """Return each split's rows, one a frame, in the clips' order and by sample.

    `left_out` are the leaks of the audit whose clips get none, `listed` the frames of train that a list leaves out.
    Raises InputError where a split has no row, and where train has rows of one label alone.
    """
    paths = {leak["path"] for leak in left_out}
    images = {image for each in listed for image in each.images}
    kept = [clip for clip in clips if clip.path not in paths]
    rows = {split: _rows_of((clip for clip in kept if clip.split == split), images) for split in SPLITS}
    _check_labels(rows, _hint(len(left_out), len(images)))
    return rows


def _rows_of(clips: Iterable[Clip], left_out: Collection[str]) -> list[Row]:
    return [Row(image, PROMPT, clip.label) for clip in clips for image in clip.frame_paths if image not in left_out]


def _hint(leaks: int, listed: int) -> str:
    """Say what rows may be missing for."""
    hint = f"; {leaks} clips were left out of it as leaks, which --keep-leaks keeps" if leaks else ""
    return hint + (f"; {listed} frames were left out of it by --leave-out" if listed else "")


def _check_labels(rows: dict[str, list[Row]], hint: str) -> None:
    if not rows[TEST]:
        raise InputError("test: no frames; the data set's test folder holds no clip that could be decoded")
    if not rows[TRAIN]:
        raise InputError(f"train: no frames; the data set's train folder holds no clip that could be decoded{hint}")
    found = {row.response for row in rows[TRAIN]}
    if found != set(LABELS):
        raise InputError(
            f"train holds one class only, {', '.join(found)}; both {' and '.join(LABELS)} are needed{hint}"
        )


def write_splits(data: Path, rows: dict[str, list[Row]], audit: dict[str, Any]) -> None:
    """Write the rows, then the audit with their hashes, once all of it is on the disk.

    The old test rows and audit go first: a build that is killed half-way leaves a file missing, which every reader
    refuses, and never a train split beside the test split of another build.
    """
    jsonl = {split: as_jsonl(rows[split]) for split in SPLITS}
    built = {
        split: {"rows": len(rows[split]), "sha256": hashlib.sha256(content).hexdigest()}
        for split, content in jsonl.items()
    }
    contents = {rows_file(split): content for split, content in jsonl.items()}
    contents[AUDIT_FILE] = as_json({"schema_version": SCHEMA_VERSION, "jsonl": built, **audit})
    write_together(data, contents, remove_first=(AUDIT_FILE, rows_file(TEST)))
