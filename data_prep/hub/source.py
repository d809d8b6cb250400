"""A data set ready for use, whichever way it is named: the id it was pushed under, or a folder with its JSONL."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants

from data_prep.clips.audit import read_audit
from data_prep.clips.jsonl import CLIPS_FILE
from data_prep.console import quiet_without_terminal
from data_prep.errors import InputError
from data_prep.files import from_root, to_root
from data_prep.hub.layout import is_repo_id
from data_prep.hub.loading import (
    check_sizes,
    is_pushed,
    load_pushed,
    pushed_audit,
    pushed_format,
    read_manifest,
    resolve_version,
)
from data_prep.labels import LABELS, TEST, TRAIN, VALIDATION, rows_file
from data_prep.media.frame_format import FrameFormat
from data_prep.rows.content import content_hash, summary
from data_prep.rows.dataset import build_dataset
from data_prep.rows.frames import read_frame_format
from data_prep.rows.validation import split_frames

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


@dataclass(frozen=True)
class FramesSource:
    """A data set ready for use, and what to record of it.

    `id` is the pushed id, or the folder relative to the project's root; `revision` the pushed version's 40 hexadecimal
    digits, None for a folder. Splits are train, validation and test; a folder too small to part has no validation.
    `audit` is what build_jsonl.py found out about the clips, and `frames` how extraction kept their frames; each is
    None where that isn't known.
    """

    dataset: "DatasetDict"
    id: str
    revision: str | None
    content_hash: str
    audit: dict[str, Any] | None = None
    frames: FrameFormat | None = None

    @property
    def max_side(self) -> int | None:
        """The most pixels a side that frames were shrunk to, None where they weren't or that isn't known."""
        return self.frames.max_side if self.frames else None

    @property
    def frames_beside_test(self) -> int:
        """How many frames are trained on and validated."""
        return sum(len(rows) for split, rows in self.dataset.items() if split != TEST)

    def rows(self, split: str) -> "Dataset":
        """Return a split whose frames come as `{"bytes", "path"}`, for images.py to decode under its own limits."""
        from datasets import Image

        if split not in self.dataset:
            raise InputError(f"data set {self.id!r} has no split {split!r}; it has {', '.join(self.dataset)}")
        return self.dataset[split].cast_column("image", Image(decode=False))

    def describe(self) -> str:
        """Say in one line what this is: id, version, content hash, and frames, clips and labels of each split."""
        version = f"version {self.revision[:12]}" if self.revision else "folder"
        return f"{self.id} ({version}, content {self.content_hash[:12]}): {summary(self.dataset)}"


def _is_frames_folder(folder: Path) -> bool:
    return any((folder / rows_file(split)).is_file() for split in (TRAIN, TEST))


def _folder_of(name: str, revision: str | None) -> Path | None:
    """Return the folder that `name` stands for, or None where it is the id of a pushed data set."""
    folder = from_root(name)
    if name.startswith((".", "/", "~")):
        if not _is_frames_folder(folder):
            raise InputError(f"{folder}: holds no {rows_file(TRAIN)}; run data_prep/build_jsonl.py --data {name} first")
        return folder
    pushed = is_repo_id(name) and is_pushed(name)
    if pushed and revision is None and _is_frames_folder(folder):
        raise InputError(
            f"data set {name!r} is both a pushed id and a folder of the project; write ./{name} for the folder, "
            "or name a revision for the pushed one"
        )
    if not pushed and not _is_frames_folder(folder):
        raise InputError(
            f"data set {name!r} is neither an id pushed to the local Hub cache ({constants.HF_HUB_CACHE}; none is "
            f"fetched from the Hub) nor a folder with {rows_file(TRAIN)}; run extract_frames.py, build_jsonl.py and "
            "push_dataset.py of data_prep/ first, or set HF_HOME to where it was pushed (make demo pushes to cache/hf)"
        )
    return None if pushed else folder


def _refuse_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise InputError(f"revision {revision!r}: {name} is a folder and has no versions; leave the revision out")


def open_dataset(name: str, *, revision: str | None = None) -> FramesSource:
    """Open a data set by its pushed id (`org/name`) or by a folder that holds train.jsonl and test.jsonl.

    A folder is relative to the project's root; a name that starts with `.`, `/` or `~` is always a folder. `revision`
    names a pushed version, in full or by a unique beginning; the default is the latest. Raises InputError for a name
    that is neither or both, and as `load_pushed` and `build_dataset` do. Nothing is asked of the Hub.
    """
    folder = _folder_of(name, revision)
    quiet_without_terminal()
    if folder is None:
        version = resolve_version(name, revision)
        dataset = load_pushed(name, version.revision)
        manifest = read_manifest(version)
        audit, frames = pushed_audit(version), pushed_format(manifest)
        return FramesSource(dataset, name, version.revision, manifest["content_hash"], audit, frames)
    _refuse_revision(name, revision)
    dataset = build_dataset(folder)
    audit, frames = read_audit(folder), read_frame_format(folder)
    return FramesSource(dataset, to_root(folder), None, content_hash(dataset), audit, frames)


def _labels_of(name: str, revision: str | None) -> dict[str, set[str]]:
    """Return the answers that each split holds, from the manifest or the JSONL files."""
    folder = _folder_of(name, revision)
    if folder is None:
        splits = check_sizes(resolve_version(name, revision))["splits"]
        return {split: {label for label, n in entry["labels"].items() if n} for split, entry in splits.items()}
    _refuse_revision(name, revision)
    return {split: {frame.response for frame in frames} for split, frames in split_frames(folder).items()}


def check_dataset(name: str, revision: str | None = None) -> None:
    """Check in about a second, with no heavy import, that one can train on what `open_dataset` would open.

    It exists, no file is missing, each row is well-formed, train has both answers and there is a validation split.
    Raises InputError otherwise. The bytes of images and Parquet files are left to `open_dataset`.
    """
    labels = _labels_of(name, revision)
    if missing := sorted(set(LABELS) - labels[TRAIN]):
        raise InputError(f"data set {name!r}: train has no {missing[0]} frame, but needs both {' and '.join(LABELS)}")
    if VALIDATION in labels and labels[VALIDATION] != set(LABELS):
        (only,) = labels[VALIDATION]
        raise InputError(
            f"data set {name!r}: validation holds {only} frames alone, but needs both answers to judge by; add clips, "
            "so that a class of each answer has two of different content"
        )
    if VALIDATION not in labels:
        raise InputError(
            f"data set {name!r} has no validation split: no source class of train has two clips of different content; "
            f"add clips (see {CLIPS_FILE})"
        )
