"""A data folder of drawn 1920x1080 frames, for the benchmarks."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.clips.jsonl import CLIPS_FILE, write_clips
from data_prep.clips.records import EXTRACTOR_VERSION, Clip, Settings
from data_prep.labels import PROMPT, SOURCE_CLASSES
from data_prep.rows.jsonl import Row, write_rows

WIDTH, HEIGHT = 1920, 1080
MAX_PIXELS = {480: 401408, 252: 200704}  # by the visual tokens that such a frame gets
FRAMES_PER_CLIP = 4


def draw_data_folder(folder: Path, *, train_clips_per_class: int) -> None:
    """Write noise frames of a few clips a class with their records and rows; one clip a class is for testing.

    They have no flat areas, which would make decoding look cheap.
    """
    random = np.random.default_rng(0)
    clips = [
        made_clip(split, index, number)
        for split in ("train", "test")
        for index in range(len(SOURCE_CLASSES))
        for number in range(train_clips_per_class if split == "train" else 1)
    ]
    for clip in clips:
        (folder / clip.folder).mkdir(parents=True, exist_ok=True)
        for path in clip.frame_paths:
            coarse = Image.fromarray(random.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8))
            coarse.resize((WIDTH, HEIGHT)).save(folder / path, "JPEG", quality=90)
    write_clips(folder / CLIPS_FILE, clips)
    for split in ("train", "test"):
        rows = [Row(path, PROMPT, clip.label) for clip in clips if clip.split == split for path in clip.frame_paths]
        write_rows(folder / f"{split}.jsonl", rows)


def made_clip(split: str, class_index: int, number: int) -> Clip:
    """Return the record of a clip that was never filmed."""
    source_class = SOURCE_CLASSES[class_index]
    video_id = f"{source_class.digit}_{split[:2]}{number}"
    return Clip(
        video_id=video_id,
        split=split,
        label=source_class.label,
        source_class=source_class.folder,
        path=f"{split}/{source_class.folder}/{video_id}.mp4",
        sha256=hashlib.sha256(f"{split}/{video_id}".encode()).hexdigest(),
        duration_seconds=float(FRAMES_PER_CLIP),
        rate=25.0,
        width=WIDTH,
        height=HEIGHT,
        settings=Settings(fps=1, jpeg_quality=90),
        extractor=EXTRACTOR_VERSION,
        samples=tuple(range(FRAMES_PER_CLIP)),
        status="ok",
        faults=(),
        reason=None,
    )
