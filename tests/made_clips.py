"""Small mp4 clips whose every frame tells its number, a data set made of them, and the real clips' folder."""

import io
import os
import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_prep.clips import DATASET_FOLDER
from data_prep.mp4_boxes import boxes, find_boxes

WIDTH, HEIGHT = 64, 48
TIME_BASE = Fraction(1, 1000)

# Display matrices of a track header, 16.16 fixed point but for the last column, by clockwise turn in degrees.
MATRICES = {
    90: (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30),
    180: (-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30),
    270: (0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30),
}


def times(count: int, rate: int | Fraction, start: Fraction | int = 0) -> list[Fraction]:
    """Return `count` presentation times in seconds, evenly spaced, the first at `start`."""
    return [start + Fraction(number) / rate for number in range(count)]


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return frame `number` (0 to 255): the grey of its left half and that of its right half tell the number."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:, : width // 2] = 8 + 16 * (number % 16)
    frame[:, width // 2 :] = 8 + 16 * (number // 16)
    return frame


def number_of(image: Image.Image) -> int:
    """Return the number that a frame's picture tells."""
    grey = np.asarray(image.convert("L"), dtype=float)
    middle = grey.shape[1] // 2
    low, high = round((grey[:, : middle - 4].mean() - 8) / 16), round((grey[:, middle + 4 :].mean() - 8) / 16)
    return low + 16 * high


def write_mp4(
    path: Path,
    seconds: Iterable[Fraction],
    *,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    first_number: int = 0,
) -> Path:
    """Write an H.264 clip whose frames are shown at `seconds`; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4", options=container_options or {}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base, stream.codec_context.gop_size = TIME_BASE, 10
        stream.options = {"crf": "10", "preset": "veryfast"}
        for number, shown in enumerate(seconds, start=first_number):
            frame = av.VideoFrame.from_ndarray(picture(number % 256, *size), format="rgb24")
            frame.pts, frame.time_base = round(shown / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_lively_mp4(path: Path, options: dict[str, str], *, frames: int = 90, codec: str = "libx264") -> Path:
    """Write a clip of 24 frames a second in which a pattern moves over noise, so that every frame leans on others."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (240, 320, 3), dtype=np.uint8)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.options = 160, 128, "yuv420p", options
        for number in range(frames):
            image = np.ascontiguousarray(noise[number : number + 128, number % 50 : number % 50 + 160])
            image[40:80, number : number + 40] += np.uint8(100)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def turn(path: Path, degrees: int) -> Path:
    """Write into a clip's track header that it is to be shown turned clockwise by `degrees`."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = struct.pack(">9i", *MATRICES[degrees])
    path.write_bytes(content)
    return path


def with_edits(path: Path, edits: list[tuple[int, int]], version: int = 0) -> Path:
    """Put an edit list in the place of a clip's own; the clip's index is its last box, so that no frame moves.

    An edit is a duration in thousandths of a second and the track's tick that it begins with, -1 for nothing.
    """
    content = path.read_bytes()
    file = io.BytesIO(content)
    moov = next(box for box in boxes(file, 0, len(content)) if box.kind == b"moov")
    trak, old = find_boxes(file, moov, "trak")[0], find_boxes(file, moov, "trak/edts")[0]
    form = ">IiI" if version == 0 else ">QqI"
    entries = b"".join(struct.pack(form, duration, media, 1 << 16) for duration, media in edits)
    new = struct.pack(">I4sI4sII", 24 + len(entries), b"edts", 16 + len(entries), b"elst", version << 24, len(edits))
    grown = 24 + len(entries) - (old.end - old.start)
    edited = bytearray(content[: old.start] + new + entries + content[old.end :])
    for box in (moov, trak):
        edited[box.start : box.start + 4] = struct.pack(">I", box.end - box.start + grown)
    path.write_bytes(edited)
    return path


def write_audio_mp4(path: Path) -> Path:
    """Write an mp4 that holds one second of silence and no video."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def make_dataset(data: Path, clips: dict[str, int]) -> Path:
    """Write a data set into a data folder: for each `train/<class>/<name>.mp4`, its length in seconds at 5 fps.

    Clips differ in content by their position in `clips`. Returns the data set's root.
    """
    root = data / DATASET_FOLDER
    for position, (path, length) in enumerate(clips.items()):
        write_mp4(root / path, times(5 * length, 5), first_number=20 * position)
    return root


def real_clip(name: str) -> Path:
    """Return a real clip below $SAFE_UNSAFE_FIXTURES/videos, or skip the test."""
    folder = os.environ.get("SAFE_UNSAFE_FIXTURES")
    if not folder:
        pytest.skip("SAFE_UNSAFE_FIXTURES is unset: no real clips to read")
    return Path(folder) / "videos" / name
