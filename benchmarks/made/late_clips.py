"""The demo's clips, drawn so that half of the UNSAFE ones show nothing unsafe for their first seconds."""

import io
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from data_prep.clips.archive import DATASET_FOLDER
from data_prep.demo.clips import (
    COPIES,
    ENCODER_OPTIONS,
    FRAMES_PER_SECOND,
    MAX_SECONDS,
    MIN_SECONDS,
    QUALITIES,
    PlannedClip,
    plan_clips,
    scene_of,
)
from data_prep.demo.renderer import Renderer
from data_prep.demo.stage import HEIGHT, WIDTH
from data_prep.files import write_atomic
from data_prep.labels import SOURCE_CLASSES, TRAIN, UNSAFE

LEAST_LATE, MOST_LATE = 2.0, 4.0  # seconds; a clip's last second always shows what its label says
CLOSED_PANEL = 1  # the class whose panel says nothing: an open one would be unsafe before the worker comes


def write_late_clips(demo: Path, folder: Path, train_clips: int, *, drawn_with: int, seed: int) -> dict[str, int]:
    """Write the demo's clips below `folder`, half of each UNSAFE class of train late; say which, by their paths.

    The value is how many first samples, at one a second, show nothing unsafe. All other clips are copied from `demo`,
    which was `drawn_with` that seed.
    """
    shutil.copytree(demo / DATASET_FOLDER, folder / DATASET_FOLDER, dirs_exist_ok=True)
    hidden = {}
    for clip, rng in chosen_clips(train_clips, seed):
        content, late_seconds = encode_late(clip, drawn_with, rng)
        write_atomic(folder / DATASET_FOLDER / clip.path, content)
        hidden[clip.path] = math.ceil(late_seconds)
    return hidden


def chosen_clips(train_clips: int, seed: int) -> Iterator[tuple[PlannedClip, np.random.Generator]]:
    """Yield the late clips, each with what goes on drawing its lateness. Byte-copies stay as they are."""
    rng = np.random.default_rng(seed)
    plan = [clip for clip in plan_clips(TRAIN, train_clips) if clip.path not in {*COPIES, *COPIES.values()}]
    for source_class in SOURCE_CLASSES:
        clips = [clip for clip in plan if clip.source_class == source_class and source_class.label == UNSAFE]
        for position in sorted(rng.permutation(len(clips))[: len(clips) // 2].tolist()):
            yield clips[position], rng


def encode_late(clip: PlannedClip, drawn_with: int, late: np.random.Generator) -> tuple[bytes, float]:
    """Return the mp4 file of one clip, as long as it was, and the second at which its behaviour begins."""
    scene, rng = scene_of(clip, drawn_with)
    frames = round(rng.uniform(MIN_SECONDS, MAX_SECONDS) * FRAMES_PER_SECOND)
    from_seconds = float(late.uniform(LEAST_LATE, min(MOST_LATE, frames / FRAMES_PER_SECOND - 1)))
    panel_open = scene.panel_open and clip.source_class.digit != CLOSED_PANEL
    before = Renderer(replace(scene, panel_open=False, behaviour_from_seconds=math.inf))
    after = Renderer(replace(scene, panel_open=panel_open, behaviour_from_seconds=from_seconds))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        options = {**ENCODER_OPTIONS, "crf": str(rng.choice(QUALITIES))}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            seconds = index / FRAMES_PER_SECOND
            pixels = (before if seconds < from_seconds else after).pixels(seconds)
            container.mux(stream.encode(av.VideoFrame.from_numpy_buffer(pixels, format="rgba")))
        container.mux(stream.encode())
    return file.getvalue(), from_seconds
