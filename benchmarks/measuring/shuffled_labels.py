"""The control of the demo's benchmark: the same frames under labels that are dealt out anew at random."""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_prep.clips.jsonl import CLIPS_FILE, write_clips
from data_prep.clips.records import Clip
from data_prep.rows.jsonl import Row, read_rows, write_rows


def shuffle_labels(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """Return the clips, in order, with the source classes of those of train dealt out anew at random.

    A clip's label follows its class, so a clip stays whole, each label keeps its number of clips, and what validation
    is cut from train is shuffled too: the best checkpoint must not be chosen by true labels. Test is untouched.
    """
    train = [clip for clip in clips if clip.split == "train"]
    classes = [(clip.source_class, clip.label) for clip in train]
    random.Random(seed).shuffle(classes)
    dealt = iter(classes)
    shuffled = []
    for clip in clips:
        source_class, label = next(dealt) if clip.split == "train" else (clip.source_class, clip.label)
        shuffled.append(replace(clip, source_class=source_class, label=label))
    return shuffled


def relabelled(clips: Sequence[Clip], seed: int) -> int:
    """Return how many clips bear another label once shuffled; about a third, where four in five are UNSAFE."""
    return sum(old.label != new.label for old, new in zip(clips, shuffle_labels(clips, seed), strict=True))


def write_shuffled_data(data: Path, clips: Sequence[Clip], folder: Path, *, seed: int) -> None:
    """Write a data folder with the clips' frames, which lie in `data`, under shuffled labels, whole or not at all.

    Frames move to where their new label wants them. They are copied: a link that leads out of a data folder is refused.
    """
    shuffled = shuffle_labels(clips, seed)
    clip_of_folder = {old.folder: new for old, new in zip(clips, shuffled, strict=True)}
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    for left in (unfinished, folder):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for split in ("train", "test"):
        rows = read_rows(data / f"{split}.jsonl")
        moved = [move_row(row, clip_of_folder) for row in rows]
        for old, new in zip(rows, moved, strict=True):
            (unfinished / new.image).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / old.image, unfinished / new.image)
        write_rows(unfinished / f"{split}.jsonl", moved)
    write_clips(unfinished / CLIPS_FILE, shuffled)
    unfinished.rename(folder)


def move_row(row: Row, clip_of_folder: Mapping[str, Clip]) -> Row:
    """Return a row as its clip's new record wants it: the image's folder and the response follow the label."""
    image = PurePosixPath(row.image)
    clip = clip_of_folder[image.parent.as_posix()]
    return replace(row, image=f"{clip.folder}/{image.name}", response=clip.label)
