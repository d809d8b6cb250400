"""Which frames make one a second, and decoding them: by timestamp, upright, RGB, whatever the headers say."""

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import av
from PIL import Image

from data_prep.images import MAX_IMAGE_PIXELS

MAX_GAP_SECONDS = 600  # a longer jump is a damaged timestamp; a frame repeated across it could fill a disk

# How Pillow turns a frame that the container says to turn by so many degrees, counter-clockwise.
_UPRIGHT = {
    90: Image.Transpose.ROTATE_90,
    -90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
}

Item = TypeVar("Item")


class VideoError(Exception):
    """A clip of which nothing can be had. The message is the reason, without the clip's path."""


def sample_by_time(timed: Iterable[tuple[Fraction, Item]], fps: Fraction) -> Iterator[tuple[int, Item]]:
    """Yield (k, item) for k = 0, 1, 2, …: the first item whose time is at or after k / fps.

    `timed` holds (seconds, item) in order of presentation; times count from the first one. An item is yielded once
    for every k that it is the first for, so a gap repeats the item that ends it.
    """
    start = None
    sample = 0
    for seconds, item in timed:
        start = seconds if start is None else start
        while (seconds - start) * fps >= sample:
            yield sample, item
            sample += 1


class Video:
    """An mp4 clip, opened for one pass over its frames; a context manager.

    `faults` counts, in words, what of the clip was damaged; it is complete once the pass has ended.
    Raises VideoError for a file that is no mp4 or holds no video.
    """

    def __init__(self, path: Path) -> None:
        self.faults: Counter[str] = Counter()
        try:
            # Without the forced format, a picture or a playlist under a clip's name would be decoded.
            self._container = av.open(f"file:{path}", format="mp4", metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"not a readable mp4 ({error.strerror})") from None
        self._stream = self._container.streams.best("video")
        if self._stream is None or self._stream.codec_context is None:
            self._container.close()
            raise VideoError("holds no video" if self._stream is None else "holds video in an unknown codec")
        self._stream.codec_context.thread_count = 1  # the clips are what is decoded in parallel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    @property
    def reason(self) -> str | None:
        """The faults in words, None for none."""
        return "; ".join(f"{fault}: {count}" for fault, count in sorted(self.faults.items()) if count) or None

    @property
    def duration_seconds(self) -> float | None:
        """The length that the container states."""
        if self._stream.duration is not None:
            return round(float(self._stream.duration * self._stream.time_base), 6)
        return None if self._container.duration is None else round(self._container.duration / av.time_base, 6)

    @property
    def rate(self) -> float | None:
        """The average frames a second that the container states."""
        return round(float(self._stream.average_rate), 6) if self._stream.average_rate else None

    def samples(self, fps: Fraction) -> Iterator[tuple[int, Image.Image]]:
        """Yield (k, upright RGB image) for every sample of `sample_by_time`, one at a time.

        Raises VideoError for frames above the pixel limit of images.py and for ones that cannot be turned into RGB.
        """
        for sample, frame in sample_by_time(self._timed_frames(), fps):
            yield sample, _upright_rgb(frame)

    def _timed_frames(self) -> Iterator[tuple[Fraction, Any]]:
        """Yield (seconds, frame) in order of presentation, leaving out frames whose time is missing or absurd."""
        previous = None
        for frame in self._frames():
            self.faults["damaged frames"] += frame.is_corrupt
            seconds = None if frame.pts is None else frame.pts * self._stream.time_base
            if seconds is None or (previous is not None and abs(seconds - previous) > MAX_GAP_SECONDS):
                self.faults["frames without a sensible time"] += 1
                continue
            previous = seconds
            yield seconds, frame

    def _frames(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._stream):
                self.faults["incomplete packets"] += packet.is_corrupt
                yield from self._decode(packet)
        except av.FFmpegError:  # raised by demux alone; the decoder may still hold frames
            self.faults["unreadable rest"] += 1
            yield from self._decode(None)
        self.faults["packets beyond the file's end"] += self._packets_beyond_end()

    def _decode(self, packet: Any) -> list[Any]:
        try:
            return self._stream.decode(packet)
        except (av.FFmpegError, ValueError):  # one packet is lost; the decoder goes on with the next
            self.faults["undecodable packets"] += 1
            return []

    def _packets_beyond_end(self) -> int:
        end = self._container.size
        return sum(entry.pos + entry.size > end for entry in self._stream.index_entries)


def _upright_rgb(frame: Any) -> Image.Image:
    if frame.width * frame.height > MAX_IMAGE_PIXELS:
        raise VideoError(f"frames of {frame.width}x{frame.height} exceed {MAX_IMAGE_PIXELS:,} pixels")
    try:
        image: Image.Image = frame.to_image(threads=1)
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"frames in {frame.format.name} cannot be turned into RGB ({error})") from None
    turn = _UPRIGHT.get(frame.rotation)
    return image if turn is None else image.transpose(turn)
