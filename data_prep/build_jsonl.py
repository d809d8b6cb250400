"""Write train.jsonl and test.jsonl, one row a frame, and audit.json about the clips behind them.

python data_prep/build_jsonl.py [--data data] [--keep-leaks]
"""

import argparse
import hashlib
import sys
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.clips.audit import AUDIT_FILE, SCHEMA_VERSION, audit_clips
from data_prep.clips.audit_in_words import audit_in_words
from data_prep.clips.lookalikes import near_identical
from data_prep.clips.records import (
    CLIPS_FILE,
    Clip,
    earlier_in_words,
    frame_folders,
    has_all_frames,
    read_finished_clips,
)
from data_prep.console import run_script
from data_prep.errors import InputError, printable
from data_prep.files import as_json, check_writable, from_root, write_together
from data_prep.labels import LABELS, PROMPT, SPLITS
from data_prep.rows.jsonl import Row, as_jsonl

REASONS = {"in_test": "its content stands in test", "both_labels": "its content stands under both labels"}
_AGAIN = "run data_prep/extract_frames.py again"


def main(argv: list[str]) -> int:
    """Check the frames against clips.jsonl, then write the rows of both splits and the audit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder with frames/ and clips.jsonl (default: data)")
    parser.add_argument(
        "--keep-leaks",
        action="store_true",
        help="keep training clips whose content stands in test, too, or under both labels (default: leave them out)",
    )
    args = parser.parse_args(argv)
    started = time.monotonic()
    data = from_root(args.data)
    clips = read_finished_clips(data / CLIPS_FILE)
    if earlier := sum(clip.is_of_earlier_extractor for clip in clips):
        raise InputError(f"{data / CLIPS_FILE}: {earlier_in_words(earlier)}; {_AGAIN}")
    check_writable(data)
    _check_frames(data, clips)
    _say_failed(clips)
    audit = audit_clips(clips, near_identical(data, clips))
    left_out = [] if args.keep_leaks else audit["leaks_in_train"]
    kept = _without(clips, left_out)
    rows = {split: rows_of(clip for clip in kept if clip.split == split) for split in SPLITS}
    _check_labels(rows, left_out)
    _write(data, rows, {"left_out_of_train": left_out, **audit})
    print(audit_in_words(audit))
    print(_left_out_in_words(left_out, len(audit["leaks_in_train"])))
    counts = ", ".join(f"{split}.jsonl {len(rows[split])} rows" for split in SPLITS)
    print(f"{counts}; {time.monotonic() - started:.1f} s", file=sys.stderr)
    return 0


def _without(clips: list[Clip], left_out: list[dict[str, Any]]) -> list[Clip]:
    paths = {leak["path"] for leak in left_out}
    return [clip for clip in clips if clip.path not in paths]


def _left_out_in_words(left_out: list[dict[str, Any]], leaks: int) -> str:
    """Say which training clips have no rows and why, a line each."""
    if not left_out:
        return "train.jsonl: every clip" + (f", {leaks} leaks kept" if leaks else "")
    frames = sum(leak["frames"] for leak in left_out)
    lines = [f"train.jsonl: {len(left_out)} clips, {frames} frames left out (--keep-leaks keeps them)"]
    for leak in left_out:
        reasons = [reason for key, reason in REASONS.items() if leak[key]]
        lines.append(f"  {leak['path']}: {', and '.join(reasons)}")
    return "\n".join(map(printable, lines))


def rows_of(clips: Iterable[Clip]) -> list[Row]:
    """Return one row a frame, in the clips' order and by sample."""
    return [Row(image, PROMPT, clip.label) for clip in clips for image in clip.frame_paths]


def _check_frames(data: Path, clips: list[Clip]) -> None:
    """Raise InputError unless the records and the folders of frames stand for each other, one to one."""
    recorded = {unicodedata.normalize("NFC", clip.folder) for clip in clips if clip.has_frames}
    for folder in frame_folders(data):
        if unicodedata.normalize("NFC", folder) not in recorded:  # some file systems list another form than was written
            raise InputError(f"{folder}: frames without a record in {CLIPS_FILE}; move them away, or {_AGAIN}")
    for clip in clips:
        if clip.has_frames and not has_all_frames(data, clip):
            raise InputError(f"{clip.folder}: not the {clip.frames} frames that {CLIPS_FILE} records; {_AGAIN}")


def _say_failed(clips: list[Clip]) -> None:
    for clip in clips:
        if clip.status == "failed":
            print(printable(f"left out, because no frame could be had: {clip.path}: {clip.reason}"), file=sys.stderr)


def _check_labels(rows: dict[str, list[Row]], left_out: list[dict[str, Any]]) -> None:
    hint = f"; {len(left_out)} clips were left out of it as leaks, which --keep-leaks keeps" if left_out else ""
    if not rows["test"]:
        raise InputError("test: no frames; the data set's test folder holds no clip that could be decoded")
    if not rows["train"]:
        raise InputError(f"train: no frames; the data set's train folder holds no clip that could be decoded{hint}")
    found = {row.response for row in rows["train"]}
    if found != set(LABELS):
        raise InputError(
            f"train holds one class only, {', '.join(found)}; both {' and '.join(LABELS)} are needed{hint}"
        )


def _write(data: Path, rows: dict[str, list[Row]], audit: dict[str, object]) -> None:
    """Write the rows, then the audit with their hashes, once all of it is on the disk.

    The old test rows and audit go first: a build that is killed half-way leaves a file missing, which every reader
    refuses, and never a train split beside the test split of another build.
    """
    jsonl = {split: as_jsonl(rows[split]) for split in SPLITS}
    built = {
        split: {"rows": len(rows[split]), "sha256": hashlib.sha256(content).hexdigest()}
        for split, content in jsonl.items()
    }
    contents = {f"{split}.jsonl": content for split, content in jsonl.items()}
    contents[AUDIT_FILE] = as_json({"schema_version": SCHEMA_VERSION, "jsonl": built, **audit})
    write_together(data, contents, remove_first=(AUDIT_FILE, "test.jsonl"))


if __name__ == "__main__":
    run_script(main)
