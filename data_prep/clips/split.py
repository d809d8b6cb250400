"""Train or test, of clips whose folders don't say: by camera and day, or by content, the same in every run.

The split follows from a hash of what a clip is, not from what else there is, so clips that are added later move none of
those that are there. All clips of one camera on one day go together: they show the same scene in the same light.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from data_prep.clips.records import CONTENT, COPY, DAY, FOLDER, Clip
from data_prep.errors import InputError
from data_prep.labels import SPLITS, TEST, TRAIN

TEST_SHARE = 0.2
SPLIT_WAYS = (DAY, CONTENT)
_SALT = "safe-unsafe split"
_NO_DAY = "9999"  # behind every day


def with_splits(clips: Iterable[Clip], way: str) -> list[Clip]:
    """Return clips whose contents are known, in order, each in its split and with what that comes from.

    A folder's split stays. By `way` DAY, clips of one camera and day are in one split, those whose day isn't known go
    by their content; by CONTENT all do. A share of TEST_SHARE of all camera-days, or contents, is test. Copies of one
    content are in one split: that of the earliest day among them, of the first camera by name.
    """
    clips = list(clips)
    by_content: defaultdict[str | None, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.split_from != FOLDER and clip.sha256 is not None:
            by_content[clip.sha256].append(clip)
    leading = {sha256: _split_of(min(copies, key=_earliest), way)[0] for sha256, copies in by_content.items()}
    return [clip if clip.split_from == FOLDER else _placed(clip, way, leading.get(clip.sha256)) for clip in clips]


def check_both_splits(clips: Iterable[Clip]) -> None:
    """Raise InputError where clips were split by what they are, and a split has none with frames."""
    clips = [clip for clip in clips if clip.has_frames]
    missing = [split for split in SPLITS if split not in {clip.split for clip in clips}]
    if missing and any(clip.split_from != FOLDER for clip in clips):
        raise InputError(
            f"{missing[0]}: no frames; too few days of cameras for each split to get one: sort the clips into folders "
            f"{' and '.join(SPLITS)}, or run extract_frames.py again with --split-by {CONTENT}"
        )


def _placed(clip: Clip, way: str, leading: str | None) -> Clip:
    """Return a clip in the split that leads its copies, or, where its content isn't known, in its own."""
    split, origin = _split_of(clip, way)
    if leading not in (None, split):
        return replace(clip, split=leading, split_from=COPY)
    return replace(clip, split=split, split_from=origin)


def _split_of(clip: Clip, way: str) -> tuple[str, str]:
    """Return the split that a clip has without its copies, and what it comes from."""
    if way == DAY and clip.day is not None:
        return _hashed(DAY, clip.camera or "", clip.day), DAY
    return _hashed(CONTENT, clip.sha256 or clip.path), CONTENT


def _hashed(*key: str) -> str:
    digest = hashlib.sha256("\n".join((_SALT, *key)).encode()).digest()
    return TEST if int.from_bytes(digest[:8]) < TEST_SHARE * 2**64 else TRAIN


def _earliest(clip: Clip) -> tuple[str, str, str]:
    return clip.day or _NO_DAY, clip.camera or "", clip.path
