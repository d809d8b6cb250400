"""The validation split: which clips of train become it."""

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from data_prep.errors import InputError
from data_prep.labels import LABELS, TEST, TRAIN, VALIDATION
from data_prep.rows.frames import Frame, read_frames

VALIDATION_FRACTION = 0.1  # of train's clips
BY_CLIP, BY_CAMERA = WAYS = ("clip", "camera")


def _classes_by_content(frames: Sequence[Frame]) -> dict[str, Counter[str]]:
    """Count, for each distinct clip content, its clips by source class; ordered by content, not by name."""
    classes: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for frame in frames:
        classes[frame.clip_sha256][frame.clip] = frame.source_class
    return {content: Counter(classes[content].values()) for content in sorted(classes)}


def cut_validation(frames: Sequence[Frame], *, seed: int = 0) -> set[str]:
    """Choose the clips of train that become validation: a tenth of each source class, at least one, drawn by `seed`.

    Clips with the same content go together, and every class keeps a clip in train, so a class whose clips all share
    one content stays out of validation. The choice depends on contents, classes and the seed, not on the rows' order.
    """
    by_content = _classes_by_content(frames)
    total = sum(by_content.values(), Counter[str]())
    goal = {name: min(max(1, round(VALIDATION_FRACTION * count)), count - 1) for name, count in total.items()}
    order = list(by_content)
    random.Random(seed).shuffle(order)
    chosen: set[str] = set()
    taken = Counter[str]()

    def fits(content: str, limit: dict[str, int]) -> bool:
        return content not in chosen and all(taken[c] + n <= limit[c] for c, n in by_content[content].items())

    def take(content: str) -> None:
        chosen.add(content)
        taken.update(by_content[content])

    # First each class is made present, the rarest first, even where that exceeds a goal; then the rest is filled up.
    most = {name: count - 1 for name, count in total.items()}
    for name in sorted(total, key=lambda name: (total[name], name)):
        candidates = [content for content in order if name in by_content[content] and fits(content, most)]
        if not taken[name] and candidates:
            take(min(candidates, key=lambda content: by_content[content].total()))
    for content in order:
        if fits(content, goal):
            take(content)
    return {frame.clip for frame in frames if frame.clip_sha256 in chosen}


def cut_cameras(frames: Sequence[Frame], *, seed: int = 0) -> set[str]:
    """Choose the clips of train that become validation: those of whole cameras, drawn by `seed`, a tenth or more.

    Cameras that show both labels are taken first, and train keeps both. A clip of another camera goes along where its
    content is one of theirs; clips of an unknown camera stay. Raises InputError where no cameras can be parted so.
    """
    cameras = sorted({frame.camera for frame in frames if frame.camera is not None})
    random.Random(seed).shuffle(cameras)
    labels = {camera: {frame.response for frame in frames if frame.camera == camera} for camera in cameras}
    cameras.sort(key=lambda camera: -len(labels[camera]))
    goal = VALIDATION_FRACTION * len({frame.clip for frame in frames})
    chosen: set[str] = set()
    held: set[str] = set()
    for camera in cameras:
        if len(held) >= goal and _labels_of(frames, held) == set(LABELS):
            break
        more = _clips_of_cameras(frames, chosen | {camera})
        if _labels_of(frames, {frame.clip for frame in frames} - more) == set(LABELS):
            chosen, held = chosen | {camera}, more
    if _labels_of(frames, held) != set(LABELS):
        raise InputError(
            f"--validation {BY_CAMERA}: of {len(cameras)} known cameras none can be held out so that train and "
            f"validation both have {' and '.join(LABELS)}; leave it out, or tell cameras to extract_frames.py"
        )
    print(f"validation: {', '.join(sorted(chosen))} held out whole", file=sys.stderr)
    return held


def _clips_of_cameras(frames: Sequence[Frame], cameras: set[str]) -> set[str]:
    contents = {frame.clip_sha256 for frame in frames if frame.camera in cameras}
    return {frame.clip for frame in frames if frame.clip_sha256 in contents}


def _labels_of(frames: Sequence[Frame], clips: set[str]) -> set[str]:
    return {frame.response for frame in frames if frame.clip in clips}


def warn_of_missing_classes(splits: dict[str, list[Frame]], way: str = BY_CLIP) -> None:
    """Name on stderr each source class of train that validation lacks."""
    train, validation = splits[TRAIN], splits.get(VALIDATION, [])
    missing = sorted({frame.source_class for frame in train} - {frame.source_class for frame in validation})
    why = {
        BY_CLIP: "it has no two clips of different content that can part",
        BY_CAMERA: "no camera that is held out shows it",
    }
    for name in missing:
        print(f"warning: {name} stays in train whole and is not in validation: {why[way]}", file=sys.stderr)
    if not validation:
        print("warning: there is no validation split: no class has a clip to spare; add clips", file=sys.stderr)


def split_frames(folder: Path, *, seed: int = 0) -> dict[str, list[Frame]]:
    """Read a data folder's frames as train, validation and test, in the order of its JSONL files.

    `validation` is left out where no class has a clip to spare. Raises InputError as `read_frames` does.
    """
    return with_validation(read_frames(folder, TRAIN), read_frames(folder, TEST), seed=seed)


def with_validation(
    train: Sequence[Frame], test: Sequence[Frame], *, seed: int = 0, way: str = BY_CLIP
) -> dict[str, list[Frame]]:
    """Return frames as train, validation and test, each in order; one that has none is left out.

    Validation is cut from train by BY_CLIP as cut_validation does, by BY_CAMERA as cut_cameras does and raises.
    """
    held_out = (cut_cameras if way == BY_CAMERA else cut_validation)(train, seed=seed)
    kept = [frame for frame in train if frame.clip not in held_out]
    validation = [frame for frame in train if frame.clip in held_out]
    splits = {TRAIN: kept, VALIDATION: validation, TEST: list(test)}
    return {split: frames for split, frames in splits.items() if frames}
