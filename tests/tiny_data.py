"""A data folder of a few tiny frames, as extract_frames.py and build_jsonl.py leave one."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep.clips.jsonl import CLIPS_FILE, write_clips
from data_prep.clips.records import EXTRACTOR_VERSION, Clip, Settings
from data_prep.labels import PROMPT, SOURCE_CLASSES
from data_prep.rows.jsonl import Row, write_rows

FRAMES_PER_CLIP = 2


def make_clip(split: str, digit: int, name: str, content: str | None = None) -> Clip:
    """Describe a clip of source class `digit`; clips of one `content` are byte-identical, by default none are."""
    source_class = SOURCE_CLASSES[digit]
    return Clip(
        video_id=name,
        split=split,
        label=source_class.label,
        source_class=source_class.folder,
        path=f"{split}/{source_class.folder}/{name}.mp4",
        sha256=hashlib.sha256((content or f"{split} {name}").encode()).hexdigest(),
        duration_seconds=2.0,
        rate=25.0,
        width=16,
        height=12,
        settings=Settings(fps=1.0, jpeg_quality=90),
        extractor=EXTRACTOR_VERSION,
        samples=tuple(range(FRAMES_PER_CLIP)),
        status="ok",
        faults=(),
        reason=None,
    )


def unversioned(clip: Clip, **changes: Any) -> str:
    """Return a clip's record as it was before records told of their extractor, with some values changed."""
    record: dict[str, Any] = {**json.loads(without_origin(clip)), "frames": clip.frames, **changes}
    return json.dumps({key: record[key] for key in record if key not in ("extractor", "samples", "faults")})


def without_origin(clip: Clip) -> str:
    """Return a clip's record as it was before records told of cameras, days and classes of one's own."""
    later = ("own_class", "description", "camera", "day", "split_from")
    record = {key: value for key, value in asdict(clip).items() if key not in later}
    return json.dumps({**record, "faults": None if clip.faults is None else dict(clip.faults)})


def many_clips(train_per_class: int = 3) -> list[Clip]:
    """Describe clips of all eight classes: `train_per_class` each in train, one each in test."""
    train = [make_clip("train", digit, f"{digit}_tr{n}") for digit in range(8) for n in range(train_per_class)]
    return train + [make_clip("test", digit, f"{digit}_te0") for digit in range(8)]


def write_frame(path: Path, name: str) -> None:
    """Write a JPEG of 16 x 12 pixels whose colour follows from `name`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    red, green, blue = hashlib.sha256(name.encode()).digest()[:3]
    Image.new("RGB", (16, 12), (red, green, blue)).save(path, "JPEG", quality=90)


def write_data(folder: Path, clips: list[Clip]) -> Path:
    """Write frames, clips.jsonl, train.jsonl and test.jsonl for `clips` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clips(folder / CLIPS_FILE, clips)
    for split in ("train", "test"):
        rows = []
        for clip in clips:
            for image in clip.frame_paths if clip.split == split else []:
                write_frame(folder / image, image)
                rows.append(Row(image, PROMPT, clip.label))
        write_rows(folder / f"{split}.jsonl", rows)
    return folder
