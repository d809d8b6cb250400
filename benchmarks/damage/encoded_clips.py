"""Small clips in which a pattern moves over noise, so that every picture leans on others, encoded as a recipe says."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

AUDIO_RATE, AUDIO_FRAME = 16000, 1024
LEVELS_APART = 40  # grey levels on average between a picture and what the poorest quality makes of it


@dataclass(frozen=True)
class Recipe:
    """How a clip is encoded; `words` says it in short.

    Frame n is shown at `times[n]` ticks of `time_base`, or, without `times`, n frames after `start` at an even `rate`;
    `way` says in words how the times come.
    `options` are the encoder's, `container` the muxer's, `filters` bit stream filters that its packets go through.
    """

    codec: str
    options: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (96, 64)
    pix_fmt: str = "yuv420p"
    rate: Fraction = Fraction(24)
    frames: int = 96
    time_base: Fraction | None = None
    times: tuple[int, ...] = ()
    way: str = "even"
    start: Fraction = Fraction(0)
    container: dict[str, str] = field(default_factory=dict)
    tag: str | None = None
    filters: str | None = None
    flags: int = 0
    interlaced: bool = False
    audio_seconds: tuple[Fraction, Fraction] | None = None

    @property
    def words(self) -> str:
        """Return everything that differs from a plain recipe of the codec."""
        plain = Recipe(self.codec)
        changed = {name: value for name, value in vars(self).items() if value != vars(plain)[name]}
        for name in ("codec", "times"):
            changed.pop(name, None)
        return " ".join([self.codec, *(f"{name}={_short(value)}" for name, value in changed.items())])

    @property
    def ticks(self) -> Fraction:
        """Return the unit of the frames' times, in seconds."""
        return self.time_base or 1 / self.rate

    @property
    def shown(self) -> tuple[int, ...]:
        """Return when each frame is shown, in ticks."""
        if self.times:
            return self.times
        return tuple(round((self.start + number / self.rate) / self.ticks) for number in range(self.frames))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{each}" for name, each in value.items())
    if isinstance(value, tuple):
        return "x".join(str(each) for each in value)
    return str(value)


def encode(recipe: Recipe, path: Path) -> Path:
    """Write the clip that a recipe describes, by one thread, so that it is always the same one; returns `path`."""
    with av.open(str(path), "w", format="mp4", options=recipe.container) as container:
        video = _video_stream(container, recipe)
        sound = container.add_stream("aac", rate=AUDIO_RATE, layout="mono") if recipe.audio_seconds else None
        container.start_encoding()  # a filter needs what the encoder says of itself
        packets = _filtered(_encoded(video, recipe), video, recipe.filters)
        if sound is None:
            container.mux(list(packets))
        else:
            _interleave(container, packets, sound, recipe)
    return path


def _video_stream(container: Any, recipe: Recipe) -> Any:
    stream = container.add_stream(recipe.codec, rate=recipe.rate)
    stream.width, stream.height, stream.pix_fmt = *recipe.size, recipe.pix_fmt
    context = stream.codec_context
    context.time_base, context.thread_count = recipe.ticks, 1
    context.flags |= recipe.flags
    stream.options = dict(one_thread(recipe))  # the library adds to it
    if recipe.tag:
        context.codec_tag = recipe.tag
    return stream


def one_thread(recipe: Recipe) -> dict[str, str]:
    """Return the encoder's options, with the ones that keep it to one thread."""
    name = {"libx265": "x265-params", "libsvtav1": "svtav1-params"}.get(recipe.codec)
    if name is None:
        return recipe.options
    single = {"libx265": "pools=1:frame-threads=1:log-level=none", "libsvtav1": "lp=1"}[recipe.codec]
    return {**recipe.options, name: ":".join(filter(None, [recipe.options.get(name), single]))}


def _encoded(stream: Any, recipe: Recipe) -> Iterator[Any]:
    for number, ticks in enumerate(recipe.shown):
        frame = av.VideoFrame.from_ndarray(picture(number, *recipe.size), format="rgb24")
        frame = frame.reformat(format=recipe.pix_fmt)
        frame.pts, frame.time_base = ticks, recipe.ticks
        yield from stream.encode(frame)
    yield from stream.encode()


def _filtered(packets: Iterator[Any], stream: Any, filters: str | None) -> Iterator[Any]:
    if filters is None:
        yield from packets
        return
    context = av.bitstream.BitStreamFilterContext(filters, stream, stream)
    for packet in packets:
        yield from context.filter(packet)
    yield from context.filter(None)


def _interleave(container: Any, packets: Iterator[Any], sound: Any, recipe: Recipe) -> None:
    start, end = recipe.audio_seconds or (Fraction(0), Fraction(0))
    waiting = list(packets)
    for at in range(int(start * AUDIO_RATE), int(end * AUDIO_RATE), AUDIO_FRAME):
        while waiting and waiting[0].dts * waiting[0].time_base <= Fraction(at, AUDIO_RATE):
            container.mux(waiting.pop(0))
        tone = np.sin(np.arange(at, at + AUDIO_FRAME, dtype=np.float32) / 9)[None]
        frame = av.AudioFrame.from_ndarray(tone.astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, at, Fraction(1, AUDIO_RATE)
        container.mux(sound.encode(frame))
    container.mux(sound.encode())
    container.mux(waiting)


def is_sound(recipe: Recipe, path: Path) -> bool:
    """Say whether a plain decoder takes every packet of a clip and gives about the pictures that were encoded.

    Not all encoders can do all that their options promise.
    """
    shown = sum(ticks >= 0 for ticks in recipe.shown)  # what comes before isn't
    with av.open(str(path)) as container:
        try:
            frames = list(container.decode(video=0))
        except av.FFmpegError:
            return False
        if shown < recipe.frames or len(frames) < recipe.frames:
            return len(frames) >= shown
        return all(_is_like(frames[number], number, recipe) for number in range(0, recipe.frames, 7))


def _is_like(frame: Any, number: int, recipe: Recipe) -> bool:
    width, height = recipe.size
    grey = frame.reformat(width, height, format="rgb24").to_ndarray().mean(axis=2)
    return bool(np.abs(grey - picture(number, width, height).mean(axis=2)).mean() < LEVELS_APART)


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Return frame `number`: noise that moves, under a brighter box that moves faster; (height, width, 3) RGB bytes."""
    noise, down, along = _noise(width, height), number % 150, number % 50
    image = np.ascontiguousarray(noise[down : down + height, along : along + width])
    side = max(4, min(width, height) // 3)
    left, top = 2 * number % max(1, width - side), 3 * number % max(1, height - side)
    image[top : top + side, left : left + side] += np.uint8(100)
    return image


@cache
def _noise(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 90, (height + 150, width + 50, 3), dtype=np.uint8)
    return np.maximum(coarse // 2, np.roll(coarse, 1, axis=1) // 2)
