"""The records of clips: one a clip, checked, with what its extraction made of it."""

import math
import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from data_prep.errors import InputError
from data_prep.labels import LABELS, SOURCE_CLASSES, SPLITS
from data_prep.media.frame_format import FrameFormat

FRAMES_FOLDER = "frames"
STATUSES = ("ok", "partial", "failed", "pending")  # pending: an extraction that was interrupted before this clip

# Raised with every change in which frames a clip gives; the clips of records of an earlier one are extracted anew.
EXTRACTOR_VERSION = 2
UNVERSIONED = 1  # its records hold no version, a count of samples in the place of their numbers, and no faults

# What a clip's split comes from: its folder, train or test; else its camera and day, its content, or a copy of it.
FOLDER, DAY, CONTENT, COPY = SPLIT_ORIGINS = ("folder", "day", "content", "copy")

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
    the folder on disk is spelled, or, with `own_class`, a line of the user's own classes file, whose `description` goes
    along. `camera` and `day`, as 2024-05-01, are what the path says of them, None where it says nothing; `split_from`
    is what the split follows from. `duration_seconds` and `rate` (frames a second) are what the container states;
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
    own_class: bool = False
    description: str | None = None
    camera: str | None = None
    day: str | None = None
    split_from: str = FOLDER

    def __post_init__(self) -> None:
        _check_video_id(self.video_id)
        if self.split not in SPLITS:
            raise InputError(f"split {self.split!r} is not one of {', '.join(SPLITS)}")
        _check_class(self)
        _check_path(self)
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


def _check_class(clip: Clip) -> None:
    known = _LABEL_OF_FOLDER.get(clip.source_class, clip.label if clip.own_class is True else None)
    if clip.label not in LABELS or known != clip.label or not clip.source_class:
        raise InputError(f"source class {clip.source_class!r} does not go with label {clip.label!r}")
    if type(clip.own_class) is not bool:
        raise InputError(f"own_class {clip.own_class!r} is neither true nor false")


def _check_path(clip: Clip) -> None:
    if not clip.path or PurePosixPath(clip.path).is_absolute() or ".." in PurePosixPath(clip.path).parts:
        raise InputError(f"path {clip.path!r} is not relative to the data set's root")
    for name in ("description", "camera", "day"):
        value = getattr(clip, name)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise InputError(f"{name} {value!r} is no text")
    if clip.split_from not in SPLIT_ORIGINS:
        raise InputError(f"split_from {clip.split_from!r} is not one of {', '.join(SPLIT_ORIGINS)}")


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


def earlier_in_words(clips: int) -> str:
    """Say what it means that an earlier version extracted so many clips."""
    return f"{clips} clips were extracted by an earlier version, whose samples could be wrong"
