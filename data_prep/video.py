"""Which frames make one a second, and decoding them: by timestamp, upright, RGB, whatever the headers say.

Of a sound H.264 clip, frames that are no samples and that no sample needs aren't decoded; what is decoded comes out as
it would if all were. At the first sign of damage the clip is decoded anew, every frame: what a decoder makes up for
what is missing depends on all that it has seen.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import av
from PIL import Image

from data_prep.errors import VideoError
from data_prep.h264 import Role, nal_length_bytes, role_of
from data_prep.pixels import Upright

MAX_GAP_SECONDS = 600  # a longer jump is a damaged timestamp; a frame repeated across it could fill a disk

# Where only samples are decoded, a group of pictures is held until it is known which of its frames are samples, and the
# samples until it is known that all are whole. A group with more samples is decoded as it comes, every frame; a clip
# with a larger group is decoded so from its start.
MAX_HELD_BYTES = 64 * 2**20
MAX_HELD_SAMPLES = 16

Item = TypeVar("Item")


class _Unsound(Exception):
    """A clip of which every frame must be decoded."""


class SampleClock:
    """Tells for items in order of presentation which samples they are; times count from the first item.

    Sample k is the first item at or after k / rate. An item is every sample that it is the first for, so a gap repeats
    the item that ends it. `rate` is in samples a unit of the items' times, seconds or a stream's ticks.
    """

    def __init__(self, rate: Fraction) -> None:
        self._numerator, self._denominator = rate.as_integer_ratio()
        self._start: Fraction | int | None = None
        self._next = 0

    def samples_of(self, at: Fraction | int) -> range:
        """Return the numbers k of the samples that the next item, shown at `at`, is."""
        if self._start is None:
            self._start = at
        first = self._next
        self._next = max(first, (at - self._start) * self._numerator // self._denominator + 1)
        return range(first, self._next)


def sample_by_time(timed: Iterable[tuple[Fraction | int, Item]], rate: Fraction) -> Iterator[tuple[int, Item]]:
    """Yield (k, item) for every sample k of SampleClock, from (time, item) in order of presentation."""
    clock = SampleClock(rate)
    for at, item in timed:
        for sample in clock.samples_of(at):
            yield sample, item


@dataclass(frozen=True)
class _Held:
    """A packet of a group of pictures that isn't decoded yet."""

    packet: Any
    role: Role


class Video:
    """An mp4 clip, opened for one pass over its frames; a context manager.

    `faults` counts, in words, what of the clip was damaged, as far as samples needed it; it is complete once the pass
    has ended.
    Raises VideoError for a file that is no mp4 or holds no video.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self.faults: Counter[str] = Counter()
        try:
            # Without the forced format, a picture or a playlist under a clip's name would be decoded.
            self._container = av.open(f"file:{self._path}", format="mp4", metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"not a readable mp4 ({error.strerror})") from None
        self._stream = self._container.streams.best("video")
        if self._stream is None or self._stream.codec_context is None:
            self._container.close()
            raise VideoError("holds no video" if self._stream is None else "holds video in an unknown codec")
        self._decoder = self._stream.codec_context
        self._decoder.thread_count = 1  # the clips are what is decoded in parallel
        self._upright = Upright(self._stream)
        self._previous: int | None = None  # the ticks of the last frame, decoded or passed over
        self._longest_gap = int(MAX_GAP_SECONDS / self._stream.time_base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    @property
    def reason(self) -> str | None:
        """The faults in words, None for none."""
        faults = self.faults + self._upright.faults  # leaves out those of which there are none
        return "; ".join(f"{fault}: {count}" for fault, count in sorted(faults.items())) or None

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
        """Yield (k, upright image in mode RGBX: RGB and a byte of padding) for every sample of SampleClock.

        Raises VideoError as Upright does.
        """
        rate, yielded = fps * self._stream.time_base, 0  # in samples a tick
        length_bytes = nal_length_bytes(self._decoder.name, self._decoder.extradata)
        if length_bytes:
            try:
                for sample, frame in self._sampled_frames(length_bytes, SampleClock(rate)):
                    yield sample, self._upright(frame)
                    yielded = sample + 1
                return
            except _Unsound:
                self._container.close()
                self._open()
        for sample, frame in sample_by_time(self._every_frame(), rate):
            image = self._upright(frame)  # counts its faults, also for one that was yielded before
            if sample >= yielded:
                yield sample, image

    def _every_frame(self) -> Iterator[tuple[int, Any]]:
        """Yield (ticks, frame) in order of presentation, leaving out frames whose time is missing or absurd."""
        for packet in self._packets():
            yield from self._timed(self._decode(packet))
        yield from self._timed(self._decode(None))
        self.faults["packets beyond the file's end"] += self._packets_beyond_end()

    def _packets(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._stream):
                self.faults["incomplete packets"] += packet.is_corrupt
                if packet.size:  # the last one is empty, a request to hand out what is left
                    yield packet
        except av.FFmpegError:  # the decoder may still hold frames
            self.faults["unreadable rest"] += 1

    def _decode(self, packet: Any) -> list[Any]:
        """Decode a packet, or with None all that the decoder still holds."""
        try:
            return self._decoder.decode(packet)
        except (av.FFmpegError, ValueError):  # one packet is lost; the decoder goes on with the next
            self.faults["undecodable packets"] += 1
            return []

    def _timed(self, frames: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for frame in frames:
            self.faults["damaged frames"] += frame.is_corrupt
            ticks = frame.pts
            if ticks is None or (self._previous is not None and abs(ticks - self._previous) > self._longest_gap):
                self.faults["frames without a sensible time"] += 1
                continue
            self._previous = ticks
            yield ticks, frame

    def _sampled_frames(self, length_bytes: int, clock: SampleClock) -> Iterator[tuple[int, Any]]:
        """Yield (k, frame) for every sample of an H.264 clip. Raises _Unsound where every frame must be decoded."""
        for timed in self._by_group(length_bytes, clock):
            if any(self.faults.values()):
                raise _Unsound
            for ticks, frame in timed:
                for sample in clock.samples_of(ticks):
                    yield sample, frame
        self.faults["packets beyond the file's end"] += self._packets_beyond_end()
        if any(self.faults.values()):
            raise _Unsound

    def _by_group(self, length_bytes: int, clock: SampleClock) -> Iterator[Iterable[tuple[int, Any]]]:
        """Yield the (ticks, frame) of each group of pictures, from an IDR picture up to the next, samples at least.

        `clock` stands where the last group left it.
        """
        held: list[_Held] = []
        held_bytes = 0
        for packet in self._packets():
            role = role_of(memoryview(packet), length_bytes)
            if role is None or packet.pts is None:
                raise _Unsound
            if role is Role.FRESH_START:
                yield self._group(held, clock)
                held, held_bytes = [], 0
            held.append(_Held(packet, role))
            held_bytes += packet.size
            if held_bytes > MAX_HELD_BYTES:
                raise _Unsound
        yield self._group(held, clock)

    def _group(self, group: list[_Held], clock: SampleClock) -> Iterable[tuple[int, Any]]:
        """Return a group's samples, or all of its frames, as they are decoded, where that is as good."""
        shown = sorted(each.packet.pts for each in group)
        ticks = shown if self._previous is None else [self._previous, *shown]
        if not all(0 < later - earlier <= self._longest_gap for earlier, later in pairwise(ticks)):
            raise _Unsound
        clock = copy.copy(clock)
        wanted = {pts for pts in shown if clock.samples_of(pts)}
        begins_fresh = bool(group) and group[0].role is Role.FRESH_START
        if not begins_fresh or len(wanted) > MAX_HELD_SAMPLES or any(each.packet.is_discard for each in group):
            return self._whole([each.packet for each in group])
        self._previous = shown[-1]
        return [(frame.pts, frame) for frame in self._only(group, wanted)]

    def _whole(self, packets: list[Any]) -> Iterator[tuple[int, Any]]:
        for packet in [*packets, None]:
            yield from self._timed(self._decode(packet))
            if any(self.faults.values()):
                raise _Unsound
        self._decoder.flush_buffers()

    def _only(self, group: list[_Held], wanted: set[int]) -> list[Any]:
        """Decode what the wanted frames of a group need, and return those in order. Raises _Unsound without all."""
        last = max((number for number, each in enumerate(group) if each.packet.pts in wanted), default=-1)
        needed = [each.packet for each in group[: last + 1] if each.role is not Role.LEAF or each.packet.pts in wanted]
        frames, decoded = [], 0
        for packet in [*needed, None] if needed else []:
            for frame in self._decode(packet):
                decoded += 1
                self.faults["damaged frames"] += frame.is_corrupt
                if frame.pts in wanted:
                    frames.append(frame)
        self._decoder.flush_buffers()
        if decoded < len(needed) or len(frames) < len(wanted) or any(self.faults.values()):
            raise _Unsound
        return frames

    def _packets_beyond_end(self) -> int:
        end = self._container.size
        return sum(entry.pos + entry.size > end for entry in self._stream.index_entries)
