"""The data set's clips: finding them, naming them, and one checked record a clip in clips.jsonl."""

import contextlib
import json
import math
import os
import re
import stat
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.disk.litter import is_unfinished, without_litter
from data_prep.errors import InputError
from data_prep.files import write_atomic
from data_prep.labels import LABELS, SOURCE_CLASSES, SPLITS, SourceClass, fold_name, source_class_of_folder
from data_prep.media.frame_format import FrameFormat

DATASET_FOLDER = "Safe and Unsafe Behaviours Dataset"
CLIPS_FILE = "clips.jsonl"
FRAMES_FOLDER = "frames"
STATUSES = ("ok", "partial", "failed", "pending")  # pending: an extraction that was interrupted before this clip

# Raised with every change in which frames a clip gives; the clips of records of an earlier one are extracted anew.
EXTRACTOR_VERSION = 2
UNVERSIONED = 1  # its records hold no version, a count of samples in the place of their numbers, and no faults

_SEARCH_DEPTH = 3
_NEVER_SEARCHED = ("demo", FRAMES_FOLDER)
_LAYOUT = f"expected: {DATASET_FOLDER}/{{train,test}}/<class folder>/*.mp4"
_LABEL_OF_FOLDER = {source_class.folder: source_class.label for source_class in SOURCE_CLASSES}


@dataclass(frozen=True)
class Settings:
    """How frames were taken: `fps` samples a second of video, saved as JPEG of `jpeg_quality` (1 to 95).

    `max_side` is the most pixels of a frame's longer side, larger ones are shrunk to it; None leaves every size.
    """

    fps: float
    jpeg_quality: int
    max_side: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps {self.fps} is not a positive number")
        FrameFormat(self.max_side, self.jpeg_quality)  # checks them

    @property
    def frame_format(self) -> FrameFormat:
        """How each frame is kept, whatever their number."""
        return FrameFormat(self.max_side, self.jpeg_quality)


@dataclass(frozen=True)
class Clip:
    """One source clip: what it is, where it stands, and how its extraction went.

    `path` is relative to the data set's root; `source_class` is one of the eight folder names of labels.py, however
    the folder on disk is spelled. `duration_seconds` and `rate` (frames a second) are what the container states;
    `width` and `height` are of the first frame as it is saved, in pixels. What could not be learnt is None.
    `extractor` is the version that took the frames, `samples` the numbers of those that stand on disk, in order.
    `faults` says in words what was damaged, and how often that was found, None where that version didn't count;
    `reason` says the same in a line, or why there is no frame. `sha256` is None where a file couldn't be read at all.
    """

    video_id: str
    split: str
    label: str
    source_class: str
    path: str
    sha256: str | None
    duration_seconds: float | None
    rate: float | None
    width: int | None
    height: int | None
    settings: Settings
    extractor: int
    samples: tuple[int, ...]
    status: str
    faults: tuple[tuple[str, int], ...] | None
    reason: str | None

    def __post_init__(self) -> None:
        _check_video_id(self.video_id)
        if self.split not in SPLITS:
            raise InputError(f"split {self.split!r} is not one of {', '.join(SPLITS)}")
        if self.label not in LABELS or _LABEL_OF_FOLDER.get(self.source_class) != self.label:
            raise InputError(f"source class {self.source_class!r} does not go with label {self.label!r}")
        if not self.path or PurePosixPath(self.path).is_absolute() or ".." in PurePosixPath(self.path).parts:
            raise InputError(f"path {self.path!r} is not relative to the data set's root")
        if self.status not in STATUSES:
            raise InputError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")
        if self.sha256 is None and self.status != "failed":
            raise InputError(f"status {self.status} does not go without a sha256")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise InputError(f"sha256 {self.sha256!r} is not 64 hexadecimal digits")
        if type(self.extractor) is not int or not UNVERSIONED <= self.extractor <= EXTRACTOR_VERSION:
            raise InputError(f"extractor {self.extractor!r} is outside {UNVERSIONED} to {EXTRACTOR_VERSION}")
        _check_samples(self.samples)
        if (self.frames > 0) != self.has_frames:
            raise InputError(f"status {self.status} does not go with {self.frames} frames")
        _check_faults(self)

    @property
    def frames(self) -> int:
        """How many frames of this clip stand on disk."""
        return len(self.samples)

    @property
    def has_frames(self) -> bool:
        """Whether frames of this clip stand on disk."""
        return self.status in ("ok", "partial")

    @property
    def is_of_earlier_extractor(self) -> bool:
        """Whether an earlier version extracted this clip, so that its samples could be wrong."""
        return self.extractor < EXTRACTOR_VERSION and self.status != "pending"

    @property
    def folder(self) -> str:
        """The folder of the clip's frames, relative to the data folder: `frames/train/unsafe/0_tr12`."""
        return f"{FRAMES_FOLDER}/{self.split}/{self.label.lower()}/{self.video_id}"

    @property
    def frame_paths(self) -> list[str]:
        """The clip's frames in order, relative to the data folder."""
        return [self.frame_path(sample) for sample in self.samples]

    def has_sample(self, sample: int) -> bool:
        """Whether the clip has a sample of this number."""
        at = bisect_left(self.samples, sample)
        return at < self.frames and self.samples[at] == sample

    def frame_path(self, sample: int) -> str:
        """Return the path of a frame, the first shown in [sample, sample + 1) / fps seconds, in the data folder."""
        return f"{self.folder}/{frame_name(sample)}"


@dataclass(frozen=True)
class Source:
    """A clip as found in the data set: `path` relative to its root, in POSIX form.

    `reason` says why it can't be read, where the folder's listing tells already. What isn't UTF-8 in the name of such
    a clip is escaped in `path`.
    """

    path: str
    split: str
    source_class: SourceClass
    reason: str | None = None


def frame_name(sample: int) -> str:
    """Return the file name of a clip's sample: `0004.jpg`."""
    return f"{sample:04d}.jpg"


def natural_key(text: str) -> tuple[list[int | str], str]:
    """Return a sort key that puts `0_tr2` before `0_tr10`."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], text


def _check_video_id(video_id: str) -> None:
    """A video_id becomes a folder that is created and removed, so it must be one plain component of a path."""
    if video_id in ("", ".", "..") or any(character in video_id for character in "/\\\0"):
        raise InputError(f"video_id {video_id!r} cannot be a folder's name")


def _check_samples(samples: tuple[int, ...]) -> None:
    if not all(type(sample) is int for sample in samples):
        raise InputError("samples are not whole numbers")
    if any(later <= earlier for earlier, later in pairwise((-1, *samples))):
        raise InputError("samples are not numbers from 0 on, each once and in order")


def _check_faults(clip: Clip) -> None:
    if (clip.faults is None) != (clip.extractor == UNVERSIONED):
        raise InputError(f"extractor {clip.extractor} does not go with faults {clip.faults}")
    faults = clip.faults or ()
    if not all(isinstance(fault, str) and type(count) is int and count > 0 for fault, count in faults):
        raise InputError(f"faults {faults} are not words, each with how often it was found")
    if clip.faults is not None and clip.has_frames and bool(faults) != (clip.status == "partial"):
        raise InputError(f"status {clip.status} does not go with {len(faults)} kinds of faults")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(without_litter(folder), key=lambda child: natural_key(child.name))
    except PermissionError:
        raise InputError(f"{folder}: may not be read; correct its permissions") from None


def _subfolders(folder: Path) -> list[Path]:
    return [child for child in _entries(folder) if child.is_dir()]


def _split_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _subfolders(root):
        split = fold_name(folder.name)
        if split in SPLITS and split in found:
            raise InputError(f"{root} holds {split} twice: {found[split].name!r} and {folder.name!r}; merge them")
        if split in SPLITS:
            found[split] = folder
    return found


def _is_class_folder(folder: Path) -> bool:
    try:
        source_class_of_folder(folder.name)
    except InputError:
        return False
    return True


def _has_both_splits(folder: Path) -> bool:
    return folder.is_dir() and set(_split_folders(folder)) == set(SPLITS)


def _roots_below(folder: Path, depth: int) -> Iterator[Path]:
    for child in _subfolders(folder):
        if child.name in _NEVER_SEARCHED:
            continue
        if _has_both_splits(child):
            splits = _split_folders(child).values()
            if any(_is_class_folder(grandchild) for split in splits for grandchild in _subfolders(split)):
                yield child
        elif depth > 1:
            yield from _roots_below(child, depth - 1)


def find_dataset(data: Path, dataset: Path | None = None) -> Path:
    """Return the data set's root: the folder that holds `train` and `test`.

    That is `dataset`, by default `<data>/Safe and Unsafe Behaviours Dataset`; where it doesn't hold both splits, the
    one folder at most three levels below `dataset` (or `data`) that does. Raises InputError for none and for several.
    """
    first = dataset or data / DATASET_FOLDER
    if _has_both_splits(first):
        return first
    searched = dataset or data
    if not searched.is_dir():
        raise InputError(f"{searched}: no such folder; {_LAYOUT}; name another place with --dataset")
    roots = list(_roots_below(searched, _SEARCH_DEPTH))
    if not roots:
        raise InputError(
            f"no data set found: looked at {first} and {_SEARCH_DEPTH} levels below {searched}; {_LAYOUT}; "
            "name another place with --dataset"
        )
    if len(roots) > 1:
        raise InputError(f"several data sets found: {', '.join(map(str, roots))}; name the one you mean with --dataset")
    return roots[0]


def _in_utf8(relative: str) -> tuple[str, str | None]:
    """Return a path as UTF-8 can hold it, and why it can't be read by it, if so."""
    try:
        relative.encode()
    except UnicodeEncodeError:
        return os.fsencode(relative).decode("utf-8", "backslashreplace"), "its name is not UTF-8: rename the file"
    return relative, None


def _source(path: Path, root: Path, split: str, source_class: SourceClass) -> Source | None:
    """Return a class folder's entry as a clip, None where it is none."""
    if path.suffix.casefold() != ".mp4":
        return None
    relative, reason = _in_utf8(path.relative_to(root).as_posix())
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
    except OSError as error:  # a link that leads nowhere or to itself; a file that vanished meanwhile
        reason = reason or f"cannot be read ({error.strerror})"
    return Source(relative, split, source_class, reason)


def _kind(path: Path) -> str:
    with contextlib.suppress(OSError):  # whatever that is, it is no clip
        if path.is_file():
            return path.suffix or path.name
    return "folder or special file"


def list_clips(root: Path) -> tuple[list[Source], Counter[str]]:
    """Return every clip of the data set in natural order, and what was left, counted by suffix.

    A clip is a regular file with the suffix `.mp4`, in any case, directly in a class folder. Litter is passed over
    unseen. Raises InputError for a class folder that labels.py refuses or that may not be read, and where there is no
    clip at all.
    """
    sources, left = [], Counter[str]()
    for split, split_folder in _split_folders(root).items():
        for entry in _entries(split_folder):
            if is_unfinished(entry.name) or not entry.is_dir():
                left[entry.suffix or entry.name] += 1
                continue
            source_class = source_class_of_folder(entry.name)
            for path in _entries(entry):
                if source := _source(path, root, split, source_class):
                    sources.append(source)
                else:
                    left[_kind(path)] += 1
    if not sources:
        raise InputError(f"no clips found: {root} holds no .mp4 file in a class folder; {_LAYOUT}")
    return sorted(sources, key=lambda source: natural_key(source.path)), left


def has_all_frames(data: Path, clip: Clip) -> bool:
    """Whether the clip's folder below `data` holds exactly the frames that its record lists, none of them empty.

    Litter among them, and what a download left unfinished, don't count.
    """
    folder = data / clip.folder
    if not folder.is_dir():
        return False
    found = [path for path in without_litter(folder) if not is_unfinished(path.name)]
    wanted = {frame_name(sample) for sample in clip.samples}
    return {path.name for path in found} == wanted and all(path.stat().st_size for path in found)


def frame_folders(data: Path) -> list[str]:
    """Return the folders of frames that stand below a data folder, whether or not a clip accounts for them."""
    folders = [data / FRAMES_FOLDER]
    for _ in ("split", "label", "clip"):
        folders = [path for folder in folders if folder.is_dir() for path in without_litter(folder)]
    return sorted(path.relative_to(data).as_posix() for path in folders)


_KEYS = [field.name for field in fields(Clip)]
_UNVERSIONED_KEYS = set(_KEYS) - {"extractor", "samples", "faults"} | {"frames"}


def _parse_clip(line: str) -> Clip:
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"not a whole JSON object ({error.msg} at column {error.colno})") from None
    try:
        if isinstance(record, dict):
            record = _of_known_version(record)
        if not isinstance(record, dict) or set(record) != set(_KEYS):
            raise InputError(f"a clip's record has exactly the keys {', '.join(_KEYS)}")
        faults = None if record["faults"] is None else tuple(sorted(record["faults"].items()))
        values = {"settings": Settings(**record["settings"]), "samples": tuple(record["samples"]), "faults": faults}
        return Clip(**{**record, **values})
    except (TypeError, AttributeError) as error:
        raise InputError(f"a value has the wrong type ({error})") from None


def _of_known_version(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the keys of today's, whatever it holds. Raises InputError for one of a later extractor."""
    if isinstance(version := record.get("extractor"), int) and version > EXTRACTOR_VERSION:
        raise InputError(
            f"extractor {version} is a later version's, this one knows up to {EXTRACTOR_VERSION}; update the project, "
            "or start over"
        )
    if set(record) != _UNVERSIONED_KEYS:
        return record
    others = {key: value for key, value in record.items() if key != "frames"}
    return {**others, "extractor": UNVERSIONED, "samples": range(record["frames"]), "faults": None}


def read_clips(path: Path) -> list[Clip]:
    """Read clips.jsonl, records of an earlier extractor as well.

    Raises InputError, naming file and line, for a missing file, a record that is torn, contradicts itself or is of a
    later extractor, and for two records of one path or of one video_id in one split.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run data_prep/extract_frames.py first") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    clips, seen = [], set[tuple[str, ...]]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            clip = _parse_clip(line)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}; delete the file and run extract_frames.py again") from None
        keys = {(clip.path,), (clip.split, clip.video_id)}
        if keys & seen:
            raise InputError(f"{path}:{number}: second record of {clip.path!r} or of its video_id {clip.video_id!r}")
        seen |= keys
        clips.append(clip)
    return clips


def standing(clips: Iterable[Clip]) -> dict[str, bool]:
    """Say of clips that are one and the same, or look it, whether they stand in both splits and under both labels."""
    clips = list(clips)
    return {
        "across_splits": len({clip.split for clip in clips}) > 1,
        "both_labels": len({clip.label for clip in clips}) > 1,
    }


def earlier_in_words(clips: int) -> str:
    """Say what it means that an earlier version extracted so many clips."""
    return f"{clips} clips were extracted by an earlier version, whose samples could be wrong"


def read_finished_clips(path: Path) -> list[Clip]:
    """Read clips.jsonl in natural order of the clips' paths, once the extraction is through.

    Raises InputError as `read_clips` does, for a file without a clip, and while clips are pending.
    """
    clips = sorted(read_clips(path), key=lambda clip: natural_key(clip.path))
    pending = sum(clip.status == "pending" for clip in clips)
    if pending or not clips:
        found = f"extraction stopped before {pending} clips" if pending else "holds no clip"
        raise InputError(f"{path}: {found}; run data_prep/extract_frames.py again")
    return clips


def write_clips(path: Path, clips: Iterable[Clip]) -> None:
    """Write clips.jsonl, one record a line in natural order of the clips' paths, whole or not at all."""
    ordered = sorted(clips, key=lambda clip: natural_key(clip.path))
    write_atomic(path, "".join(f"{_as_line(clip)}\n" for clip in ordered).encode())


def _as_line(clip: Clip) -> str:
    """Return a clip's record as JSON. `asdict` would copy the samples one by one."""
    faults = None if clip.faults is None else dict(clip.faults)
    record = {**vars(clip), "settings": asdict(clip.settings), "faults": faults}
    return json.dumps(record, ensure_ascii=False, allow_nan=False)
