"""Data folders made one data set: each plant's clips under the name of its folder, no content in two splits."""

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_prep.clips.audit import SCHEMA_VERSION, audit_clips, read_audit
from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.clips.records import FRAMES_FOLDER, Clip, frame_name
from data_prep.errors import InputError
from data_prep.labels import SPLITS, TEST, TRAIN, fold_name
from data_prep.media.frame_format import FrameFormat, common_format
from data_prep.rows.frames import Frame, read_frame_format, read_frames
from data_prep.rows.validation import BY_CLIP, with_validation


@dataclass(frozen=True)
class Joined:
    """Frames by split, the audit of their clips, None where none is of them, and how frames were kept, if alike."""

    splits: dict[str, list[Frame]]
    audit: dict[str, Any] | None
    frame_format: FrameFormat | None


def join_folders(
    folders: Sequence[Path], *, seed: int = 0, validation: str = BY_CLIP, test_camera: str | None = None
) -> Joined:
    """Read the rows of data folders as one data set.

    Of several, clips and cameras are called `<folder's name>/<name>`, so that none collide, and training clips whose
    content another folder holds in test, or under the other label, are left out, aloud. `validation` is the way of
    with_validation. With a `test_camera` all of that camera's clips are the test split, and of the others those of
    train are learnt from; what the audits say of the splits isn't so any more. Raises InputError as read_frames does,
    for folders of one name, and where they ask different questions or label a class differently.
    """
    names = _names_of(folders)
    frames = {
        split: [_named(frame, name) for folder, name in names.items() for frame in read_frames(folder, split)]
        for split in SPLITS
    }
    left_out: set[Frame] = set()
    if len(folders) > 1:
        _check_one_question(frames)
        _check_classes(frames)
        left_out = _leaks(frames[TRAIN], folders=list(names))
        frames[TRAIN] = [frame for frame in frames[TRAIN] if frame not in left_out]
        _say_left_out(left_out)
    if test_camera is not None:
        frames = hold_out_camera(frames, test_camera)
    splits = with_validation(frames[TRAIN], frames[TEST], seed=seed, way=validation)
    formats = [read_frame_format(folder) for folder in folders]
    kept = common_format(each for each in formats if each) if all(formats) else None
    audit = None if test_camera is not None else _audit_of(names, left_out)
    return Joined(splits, audit, kept)


def hold_out_camera(frames: Mapping[str, Sequence[Frame]], camera: str) -> dict[str, list[Frame]]:
    """Return train without a camera, and that camera as test; train's clips there are called `train/<name>`.

    What else was test is left out, so that nothing of it is learnt; so are copies of the camera's clips. Raises
    InputError for a camera that no frame is of.
    """
    known = sorted({frame.camera for split in SPLITS for frame in frames[split] if frame.camera is not None})
    if camera not in known:
        raise InputError(f"--test-camera {camera!r} is none of the data's cameras; known: {', '.join(known) or 'none'}")
    moved = [replace(frame, clip=_of_train(frame.clip)) for frame in frames[TRAIN] if frame.camera == camera]
    test = [*moved, *(frame for frame in frames[TEST] if frame.camera == camera)]
    contents = {frame.clip_sha256 for frame in test}
    return {TRAIN: [frame for frame in frames[TRAIN] if frame.clip_sha256 not in contents], TEST: test}


def _of_train(clip: str) -> str:
    plant, slash, video_id = clip.rpartition("/")
    return f"{plant}{slash}{TRAIN}/{video_id}"


def image_of(clip: str, sample: int, *, split: str, label: str) -> str:
    """Return the path of a frame as its row names it, from the data folder, by the name of its clip in a data set.

    Of several data folders, it begins with the folder's name.
    """
    *above, video_id = clip.split("/")  # which no video_id holds
    stood_in = TEST if split == TEST else TRAIN  # validation is a part of what the folder holds as train
    if above and above[-1] in SPLITS:
        stood_in = above.pop()
    return "/".join([*above, FRAMES_FOLDER, stood_in, label.lower(), video_id, frame_name(sample)])


def _names_of(folders: Sequence[Path]) -> dict[Path, str]:
    """Return the name that each folder's clips and cameras bear, empty for a single folder."""
    if len(folders) == 1:
        return {folders[0]: ""}
    names = {folder.resolve(): folder.resolve().name for folder in folders}
    folded = [fold_name(name) for name in names.values()]
    if len(names) < len(folders) or len(set(folded)) < len(folded) or set(folded) & set(SPLITS):
        raise InputError(
            f"--data {' '.join(map(str, folders))}: each folder's clips bear its name, so names must differ, and none "
            f"may be {' or '.join(SPLITS)}; rename one"
        )
    return names


def _named(frame: Frame, name: str) -> Frame:
    if not name:
        return frame
    return replace(frame, clip=f"{name}/{frame.clip}", camera=frame.camera and f"{name}/{frame.camera}")


def _all(frames: Mapping[str, Sequence[Frame]]) -> Iterable[Frame]:
    return (frame for split in SPLITS for frame in frames[split])


def _check_one_question(frames: Mapping[str, Sequence[Frame]]) -> None:
    first: dict[str, str] = {}
    for frame in _all(frames):
        first.setdefault(frame.prompt, frame.where)
    if len(first) > 1:
        (one, where), (other, there) = list(first.items())[:2]
        raise InputError(
            f"{where} asks {one!r} and {there} asks {other!r}; an adapter answers one question: build both with the "
            "same --prompt"
        )


def _check_classes(frames: Mapping[str, Sequence[Frame]]) -> None:
    first: dict[str, Frame] = {}
    for frame in _all(frames):
        known = first.setdefault(frame.source_class, frame)
        if known.response != frame.response:
            raise InputError(
                f"{frame.source_class!r} is {known.response} in {known.where} and {frame.response} in {frame.where}; "
                "have one of the classes files name it with the folder above it, and extract and build again"
            )


def _leaks(train: Sequence[Frame], folders: Sequence[Path]) -> set[Frame]:
    """Return the training frames whose content another folder's clips hold in test, or under the other label.

    Clips count whose frames have no rows, too: they were left out as leaks themselves.
    """
    tested, labels = defaultdict[str | None, set[str]](set), defaultdict[str | None, set[tuple[str, str]]](set)
    for folder in folders:
        for clip in read_clips(folder / CLIPS_FILE):
            if clip.has_frames:
                labels[clip.sha256].add((str(folder), clip.label))
            if clip.has_frames and clip.split == TEST:
                tested[clip.sha256].add(str(folder))

    def leaks(frame: Frame) -> bool:
        others = labels[frame.clip_sha256]
        elsewhere = any(folder != frame.folder and label != frame.response for folder, label in others)
        return elsewhere or bool(tested[frame.clip_sha256] - {frame.folder})

    return {frame for frame in train if leaks(frame)}


def _say_left_out(frames: Collection[Frame]) -> None:
    if clips := sorted({frame.clip for frame in frames}):
        print(
            f"left out of train: {len(clips)} clips, {len(frames)} frames, whose content another folder holds in test "
            f"or under the other label, the first {clips[0]}",
            file=sys.stderr,
        )


def _audit_of(names: Mapping[Path, str], left_out: Collection[Frame]) -> dict[str, Any] | None:
    """Return the audit of one folder, or of all of several, None where one has none that is of its rows."""
    audits = {folder: audit for folder in names if (audit := read_audit(folder))}
    if len(audits) < len(names):
        return None
    if len(names) == 1:
        return next(iter(audits.values()))
    clips: list[Clip] = []
    alike: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    data_of: dict[str, Path] = {}
    leaking = {frame.clip for frame in left_out}
    for folder, name in names.items():
        own = [_clip_named(clip, name) for clip in read_clips(folder / CLIPS_FILE)]
        data_of |= {clip.path: folder for clip in own}
        clips += own
        for group in audits[folder]["near_identical_clips"]:
            alike.append({**group, "paths": [f"{name}/{path}" for path in group["paths"]]})
        left += [{**leak, "path": f"{name}/{leak['path']}"} for leak in audits[folder]["left_out_of_train"]]
        left += [{"path": c.path} for c in own if c.split == TRAIN and f"{name}/{c.video_id}" in leaking]
    found = audit_clips(clips, alike, lambda clip: data_of[clip.path])
    twins = [
        {**twin, "clip": f"{twin['path'].partition('/')[0]}/{twin['clip']}"} for twin in found["test_clips_with_twins"]
    ]
    return {"schema_version": SCHEMA_VERSION, **found, "test_clips_with_twins": twins, "left_out_of_train": left}


def _clip_named(clip: Clip, name: str) -> Clip:
    return replace(clip, path=f"{name}/{clip.path}", camera=clip.camera and f"{name}/{clip.camera}")
