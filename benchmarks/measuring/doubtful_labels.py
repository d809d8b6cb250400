"""Labels that are wrong on purpose, and what a reviewer who knows the drawing would tick."""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.clips.records import FRAMES_FOLDER, natural_key
from data_prep.demo.clips import plan_clips, scene_of, with_copies
from data_prep.demo.record import RECORD_FILE
from data_prep.labels import LABELS, SAFE, SPLITS, TRAIN, UNSAFE, rows_file
from data_prep.rows.frames import Frame
from data_prep.rows.jsonl import read_rows, write_rows
from data_prep.rows.validation import split_frames

OTHER = dict(zip(LABELS, LABELS[::-1], strict=True))


def link_data(data: Path, folder: Path) -> None:
    """Make a data folder with the frames and clips of another, whole or not at all; frames are hard links."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(data / FRAMES_FOLDER, unfinished / FRAMES_FOLDER, copy_function=os.link)
    for name in (CLIPS_FILE, *map(rows_file, SPLITS)):
        shutil.copyfile(data / name, unfinished / name)
    unfinished.rename(folder)


def frames_flipped(data: Path, share: float, seed: int) -> set[str]:
    """Return the images whose labels are to be flipped: that share of the frames that training sees, at random."""
    images = sorted(frame.image for frame in split_frames(data)[TRAIN])
    rng = np.random.default_rng(seed)
    return {images[position] for position in rng.permutation(len(images))[: round(share * len(images))]}


def clips_on_the_wrong_side(data: Path, of_each_label: int, seed: int) -> set[str]:
    """Return the images of so many clips of each label that training sees, chosen at random."""
    frames, rng = split_frames(data)[TRAIN], np.random.default_rng(seed)
    chosen: set[str] = set()
    for label in LABELS:
        clips = sorted({frame.clip for frame in frames if frame.response == label}, key=natural_key)
        chosen |= {clips[position] for position in rng.permutation(len(clips))[:of_each_label]}
    return {frame.image for frame in frames if frame.clip in chosen}


def flip(data: Path, images: Collection[str]) -> None:
    """Give those rows of a data folder's train split the other label."""
    file = data / rows_file(TRAIN)
    rows = [replace(row, response=OTHER[row.response]) if row.image in images else row for row in read_rows(file)]
    write_rows(file, rows)


def hidden_samples(demo: Path) -> dict[str, int]:
    """Return, by a clip's path, how many first samples of the demo's UNSAFE training clips show nothing unsafe.

    Before somebody without a vest comes to an open press, the open panel is unsafe already.
    """
    record = json.loads((demo / RECORD_FILE).read_text(encoding="utf-8"))
    settings = record["settings"]
    hidden = {}
    for clip in with_copies(plan_clips(TRAIN, settings["train_clips"])):
        at_press = clip.source_class.digit == 1
        if clip.source_class.label == UNSAFE and not (at_press and scene_of(clip, settings["seed"])[0].panel_open):
            hidden[clip.path] = int(record["clips"][clip.path]["hidden_samples"])
    return hidden


def images_hidden(data: Path, hidden: Mapping[str, int]) -> set[str]:
    """Return the images of a data folder's UNSAFE training clips in which nothing unsafe is to be seen."""
    clips = [clip for clip in read_clips(data / CLIPS_FILE) if clip.split == TRAIN]
    return {
        clip.frame_path(sample)
        for clip in clips
        for sample in clip.samples
        if clip.label == UNSAFE and sample < hidden.get(clip.path, 0)
    }


def contradicted(frames: Sequence[Frame], flipped: Collection[str], nothing_unsafe: Collection[str]) -> set[str]:
    """Return the images whose label the drawing contradicts: what a reviewer who sees what was drawn would tick."""

    def drawn(frame: Frame) -> str:
        own = OTHER[frame.response] if frame.image in flipped else frame.response
        return SAFE if frame.image in nothing_unsafe else own

    return {frame.image for frame in frames if drawn(frame) != frame.response}
