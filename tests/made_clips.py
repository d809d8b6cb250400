"""Small mp4 clips whose every frame tells its number, a data set made of them, and the real clips' folder."""

import io
import os
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from data_prep.clips.archive import DATASET_FOLDER
from data_prep.media.mp4.boxes import boxes, find_boxes

WIDTH, HEIGHT = 64, 48
TIME_BASE = Fraction(1, 1000)


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


def write_numbered_mp4(path: Path, x264: str, *, frames: int = 96) -> Path:
    """Write a clip of 24 frames a second, the time base, whose frames tell their numbers; `x264` are x264's params."""
    with av.open(str(path), "w", format="mp4", options={"video_track_timescale": "24"}) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"x264-params": f"scenecut=0:threads=1:{x264}", "crf": "10", "preset": "veryfast"}
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number % 256), format="rgb24")))
        container.mux(stream.encode())
    return path


def remux(source: Path, path: Path, change: Callable[[list[Any]], Iterable[Any]], **options: str) -> Path:
    """Write the packets that `change` makes of a clip's, in their order; `options` are the mp4 muxer's.

    There is no edit list, which would discard what is shown before the first packet.
    """
    options = {"video_track_timescale": "24", "use_editlist": "0", **options}
    with (
        av.open(str(source)) as original,
        av.open(str(path), "w", format="mp4", options=options) as container,
    ):
        stream = container.add_stream_from_template(original.streams.video[0])
        for packet in change([packet for packet in original.demux(video=0) if packet.size]):
            packet.stream = stream
            container.mux(packet)
    return path


Box = tuple[bytes, "list[Box] | bytes"]
_HOLD_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def read_boxes(content: bytes) -> list[Box]:
    """Return an mp4's boxes, those of moov down to the sample tables as lists of their own."""
    boxes: list[Box] = []
    while content:
        size, kind = struct.unpack(">I4s", content[:8])
        boxes.append((kind, read_boxes(content[8:size]) if kind in _HOLD_BOXES else content[8:size]))
        content = content[size:]
    return boxes


def write_boxes(boxes: list[Box]) -> bytes:
    """Return the bytes of boxes, their sizes made anew."""
    bodies = [(kind, body if isinstance(body, bytes) else write_boxes(body)) for kind, body in boxes]
    return b"".join(struct.pack(">I4s", 8 + len(body), kind) + body for kind, body in bodies)


def box_in(boxes: list[Box], *kinds: bytes) -> Any:
    """Return the body of the box that a path of kinds leads to."""
    body = next(body for kind, body in boxes if kind == kinds[0])
    return box_in(body, *kinds[1:]) if isinstance(body, list) and len(kinds) > 1 else body


_STBL = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def join_by_sample_entries(first: Path, second: Path, path: Path) -> Path:
    """Write the frames of two clips as one track of two sample entries, 24 frames a second; no B-frames."""
    parts = []
    for source in (first, second):
        boxes = read_boxes(source.read_bytes())
        with av.open(str(source)) as container:
            packets = [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
        parts.append((boxes, packets))
    packets = [packet for _, part in parts for packet in part]
    counts = [len(part) for _, part in parts]
    entries = [box_in(boxes, *_STBL, b"stsd")[8:] for boxes, _ in parts]
    keys = [number for number, (_, is_key) in enumerate(packets, start=1) if is_key]
    ticks = int.from_bytes(box_in(parts[0][0], b"moov", b"trak", b"mdia", b"mdhd")[12:16], "big")  # a second
    ftyp = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom")
    data = b"".join(content for content, _ in packets)
    chunks = [len(ftyp) + 8, len(ftyp) + 8 + sum(len(content) for content, _ in parts[0][1])]
    tables = {
        b"stsd": struct.pack(">II", 0, 2) + b"".join(entries),
        b"stts": struct.pack(">IIII", 0, 1, len(packets), ticks // 24),
        b"stss": struct.pack(f">II{len(keys)}I", 0, len(keys), *keys),
        b"stsc": struct.pack(">II6I", 0, 2, 1, counts[0], 1, 2, counts[1], 2),
        b"stsz": struct.pack(f">III{len(packets)}I", 0, 0, len(packets), *(len(content) for content, _ in packets)),
        b"stco": struct.pack(">II2I", 0, 2, *chunks),
    }
    moov = [(kind, body) for kind, body in parts[0][0] if kind == b"moov"]
    box_in(moov, b"moov", b"trak", b"mdia", b"minf")[:] = [
        (kind, list(tables.items()) if kind == b"stbl" else body)
        for kind, body in box_in(moov, b"moov", b"trak", b"mdia", b"minf")
    ]
    trak = box_in(moov, b"moov", b"trak")
    trak[:] = [(kind, body) for kind, body in trak if kind != b"edts"]
    path.write_bytes(ftyp + write_boxes([(b"mdat", data), *moov]))
    return path


def turn(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """Write into a clip's track header that its pixel (x, y) is to be shown at (a x + c y, b x + d y), y downwards."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(entry * 2**16) for entry in (a, b, c, d))
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
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
