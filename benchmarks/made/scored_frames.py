"""Frames with scores that no model gave, and their record, for the benchmark of reports."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image

from data_prep.files import write_json
from data_prep.labels import LABELS, SOURCE_CLASSES, UNSAFE, SourceClass
from data_prep.rows.dataset import dataset_columns
from recipes.metrics.threshold import PLAIN_THRESHOLD

FRAMES_A_CLIP = 10
SKILLS = {"adapter": 2.0, "base_model": 0.2, "linear_probe": 1.2}  # of a clip's own lean, in logits


def draw_scored_frames(folder: Path, frames: int) -> None:
    """Write scored frames, as arms/report.py reads them, unless they are there: clips that lean to their own side."""
    if (folder / "scores.npz").is_file():
        return
    rng, clips = np.random.default_rng(0), frames // FRAMES_A_CLIP
    classes = [SOURCE_CLASSES[number] for number in rng.integers(0, len(SOURCE_CLASSES), clips)]
    truth = np.array([each.label == UNSAFE for each in classes])
    scores: dict[str, Any] = {}
    for name, skill in SKILLS.items():
        of_clip = skill * (2 * truth - 1) + 1.5 * rng.normal(size=clips)
        logits = np.repeat(of_clip, FRAMES_A_CLIP) + 0.4 * rng.normal(size=frames)
        scores[name] = 1 / (1 + np.exp(-logits))
    Dataset.from_dict(_columns(classes), features=dataset_columns()).save_to_disk(str(folder / "test"))
    write_json(folder / "safety.json", _record())
    np.savez(folder / "scores.npz", **scores)


def _columns(classes: list[SourceClass]) -> dict[str, list[Any]]:
    picture = io.BytesIO()
    Image.effect_noise((64, 36), 40).convert("RGB").save(picture, format="JPEG")
    of_frame = np.repeat(np.arange(len(classes)), FRAMES_A_CLIP)
    return {
        "image": [{"bytes": picture.getvalue(), "path": None}] * len(of_frame),
        "prompt": ["SAFE or UNSAFE?"] * len(of_frame),
        "response": [classes[clip].label for clip in of_frame],
        "clip": [f"{classes[clip].folder[0]}_te{clip}" for clip in of_frame],
        "sample": list(range(FRAMES_A_CLIP)) * len(classes),
        "source_class": [classes[clip].folder for clip in of_frame],
        "camera": [None] * len(of_frame),
    }


def _record() -> dict[str, Any]:
    """Return a safety.json for frames that no adapter was asked about."""
    names = ("base_model", "base_revision", "dataset", "dataset_hash")
    settings = {"dtype": "bfloat16", "load_in_4bit": True, "dataset_revision": None, "seed": 0, "max_pixels": 100352}
    answering = {"threshold": PLAIN_THRESHOLD, "threshold_from": "fixed", "training_prior": 0.5}
    asking = {"prompt": "SAFE or UNSAFE?", "labels": list(LABELS)}
    return {**asking, **dict.fromkeys(names, "drawn"), **settings, **answering}
