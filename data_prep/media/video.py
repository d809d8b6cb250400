"""Which frames make one a second, and decoding them: by timestamp, upright, RGB, whatever the headers say.

A first pass over the packets, nothing decoded, tells when and in which order frames are shown, what is missing, and
which frames are samples. Of a sound H.264 clip, frames that are no samples and that no sample needs aren't decoded;
what is decoded comes out as it would if all were. At the first sign of damage the clip is decoded anew, every frame:
what a decoder makes up for what is missing depends on all that it has seen. Where packets don't tell the order of
presentation, a decoder does: such a clip is decoded twice.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from PIL import Image

from data_prep.media.bitstreams.coded_picture import Role
from data_prep.media.bitstreams.pictures import picture_reader
from data_prep.media.mp4.opening import open_mp4
from data_prep.media.pixels import Upright
from data_prep.media.survey import NO_TIME, Plan, Survey

# Packets are kept from the first pass to the next up to so many bytes; a larger clip is read again. Where only samples
# are decoded, a group of pictures is held until it is decoded, and its samples until it is known that all are whole. A
# clip with a larger group is decoded as it comes, every frame, and so is a group with more samples.
MAX_KEPT_BYTES = 16 * 2**20
MAX_HELD_BYTES = 64 * 2**20
MAX_HELD_SAMPLES = 16

# By which decoders notice more of what is damaged while nothing is said of sound clips: of single bits flipped, AV1's
# 99 of 100 instead of 84. HEVC's "explode" would notice 17 instead of 4, and stumbles over sound clips' messages (SEI).
_STRICTEST = {"libdav1d": {"strict": "very"}}

Sampled = Iterator[tuple[int | None, Any]]


class _Unsound(Exception):
    """The clip can't be decoded in this way: every frame must be, or the order of presentation isn't as planned."""


class Video:
    """An mp4 clip, opened for one pass over its frames; a context manager.

    `faults` counts, in words, what of the clip was damaged, as far as samples needed it; it is complete once the pass
    has ended.
    Raises VideoError for a file that is no mp4, and for one that holds no video or none that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._survey = Survey()
        self._held: list[Any] | None = None  # the packets, where they are few
        self._plan: Plan | None = None
        self._open()
        self._upright = Upright(self._stream)

    def _open(self) -> None:
        opened = open_mp4(self._path)
        self._container, self._stream, self._edits = opened.container, opened.stream, opened.edits
        self._left_out = opened.faults  # of the file
        self._faults: Counter[str] = Counter()  # of this way of decoding
        self._decoder = self._stream.codec_context
        self._decoder.thread_count = 1  # the clips are what is decoded in parallel
        self._decoder.options = _STRICTEST.get(self._decoder.name, {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    @property
    def faults(self) -> Counter[str]:
        """How often each kind of damage was met, in words."""
        times = self._plan.timeline.faults if self._plan else Counter[str]()
        return +(self._left_out + self._survey.faults + times + self._faults + self._upright.faults)

    @property
    def reason(self) -> str | None:
        """The faults in words, None for none."""
        words = [f"{fault}: {count}" for fault, count in sorted(self.faults.items())]
        if self._plan and self._plan.timeline.longest_jump:
            words.append(f"longest jump: {self._plan.timeline.longest_jump:.6g} s")
        return "; ".join(words) or None

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
        """Yield (k, upright image in mode RGBX: RGB and a byte of padding) for every sample k, in order.

        Sample k is the first frame shown in [k, k + 1) / fps seconds from the clip's first packet; a slot in which none
        is shown, or none that can be decoded, has no sample. timeline.py says what becomes of wrong times.
        Raises VideoError as Upright does.
        """
        rate = fps * self._stream.time_base  # in samples a tick
        self._look_through()
        last = -1
        for number, way in enumerate(self._ways(rate)):
            if number or self._held is None:
                self._start_anew()
            try:
                for sample, frame in way():
                    if sample is not None and sample > last:
                        yield sample, self._upright(frame)
                        last = sample
                return
            except _Unsound:
                continue

    def _look_through(self) -> None:
        """Survey all packets, and keep them if they are few."""
        reader = picture_reader(self._decoder.name, self._decoder.extradata)
        is_h264 = self._decoder.name == "h264"
        survey = Survey(reader, self._edits, is_h264=is_h264, is_fragmented=self._is_fragmented)
        held: list[Any] = []
        held_bytes = 0
        for packet in self._read(survey.faults):
            survey.add(packet)
            held_bytes += packet.size
            held.append(packet)
            if held_bytes > MAX_KEPT_BYTES:
                held.clear()
        survey.faults["packets beyond the file's end"] += self._packets_beyond_end()
        survey.finish()
        self._survey, self._held = survey, held if held_bytes <= MAX_KEPT_BYTES else None

    def _read(self, faults: Counter[str]) -> Iterator[Any]:
        latest = NO_TIME
        try:
            for packet in self._container.demux(self._stream):
                faults["incomplete packets"] += packet.is_corrupt
                if packet.size:
                    at = NO_TIME if packet.dts is None else packet.dts
                    is_set_back = packet.is_discard and self._is_fragmented and at <= latest
                    yield _kept(packet) if is_set_back else packet
                    latest = max(latest, at)
                elif packet.pts is not None:  # the last one has no time: a request to hand out what is left
                    faults["empty packets"] += 1
        except (av.FFmpegError, OSError):
            faults["unreadable rest"] += 1

    @property
    def _is_fragmented(self) -> bool:
        return self._stream.frames == 0  # in the header's tables

    def _packets_beyond_end(self) -> int:
        end = self._container.size
        return sum(entry.pos + entry.size > end for entry in self._stream.index_entries)

    def _ways(self, rate: Fraction) -> Iterator[Callable[[], Sampled]]:
        """Yield the ways of decoding the clip's samples, the cheapest first; one that doesn't suit says so."""
        plan = self._plan = self._survey.plan(rate, 1 / self._stream.time_base)
        if plan and self._survey.is_skippable:
            yield lambda: self._only_needed(plan)
        if plan:
            yield lambda: self._as_planned(plan)
        yield lambda: self._in_decoded_order(rate)

    def _start_anew(self) -> None:
        self._container.close()
        self._open()
        self._upright.reopen(self._stream)

    def _packets(self) -> Iterator[tuple[int, Any]]:
        """Yield the packets with their numbers, which they bear in place of their times, and so do their frames."""
        count = 0
        for number, packet in enumerate(self._read(Counter()) if self._held is None else self._held):
            packet.pts = number
            yield number, packet
            count += 1
        self._faults["packets that came the first time and not again"] += len(self._survey) - count

    def _decode(self, packet: Any) -> list[Any]:
        """Decode a packet, or with None all that the decoder still holds."""
        try:
            frames = self._decoder.decode(packet)
        except (av.FFmpegError, ValueError):  # one packet is lost; the decoder goes on with the next
            self._faults["undecodable packets"] += 1
            return []
        self._faults["damaged frames"] += sum(frame.is_corrupt for frame in frames)
        return [frame for frame in frames if frame.pts in range(len(self._survey))]

    def _every_frame(self) -> Iterator[tuple[int, Any]]:
        """Yield (its packet's number, frame) as they are decoded, each packet's first one."""
        came = bytearray(len(self._survey))
        for _, packet in chain(self._packets(), [(0, None)]):
            for frame in self._decode(packet):
                if not came[frame.pts] and frame.pts not in self._survey.discarded:
                    came[frame.pts] = True
                    yield frame.pts, frame
        without = len(came) - sum(came) - len(self._survey.discarded) - self._faults["undecodable packets"]
        self._faults["packets that gave no frame"] += max(without, 0)

    def _as_planned(self, plan: Plan) -> Sampled:
        """Decode every frame. Raises _Unsound where they don't come in the planned order."""
        rank = -1
        for number, frame in self._every_frame():
            if plan.ranks[number] < rank or (rank < 0 and not plan.begins_with(number)):
                raise _Unsound
            rank = plan.ranks[number]
            yield plan.samples[number], frame

    def _in_decoded_order(self, rate: Fraction) -> Sampled:
        """Decode every frame twice, first to learn the order in which they are shown."""
        decoded = [number for number, _ in self._every_frame()]
        shown, undecoded = self._survey.with_undecoded(decoded)
        plan = self._plan = self._survey.plan_of(shown, undecoded, rate, 1 / self._stream.time_base)
        if not decoded:
            return
        self._start_anew()
        for number, frame in self._every_frame():
            yield plan.samples[number], frame

    def _only_needed(self, plan: Plan) -> Sampled:
        """Decode what an H.264 clip's samples need. Raises _Unsound where every frame must be decoded."""
        wanted = plan.firsts()
        for group in self._groups():
            for number, frame in self._group(group, wanted):
                if number in wanted:
                    yield plan.samples[number], frame
        if self._faults.total():
            raise _Unsound

    def _groups(self) -> Iterator[list[tuple[int, Any]]]:
        """Yield the packets of each group of pictures, from an IDR picture up to the next, with their numbers."""
        group: list[tuple[int, Any]] = []
        held_bytes = 0
        for number, packet in self._packets():
            if self._survey.roles[number] is Role.FRESH_START:
                yield group
                group, held_bytes = [], 0
            group.append((number, packet))
            held_bytes += packet.size
            if held_bytes > MAX_HELD_BYTES:
                raise _Unsound
        yield group

    def _group(self, group: list[tuple[int, Any]], wanted: set[int]) -> Iterable[tuple[int, Any]]:
        """Return a group's samples, or all of its frames, as they are decoded, where that is as good."""
        numbers = [number for number, _ in group]
        samples = wanted.intersection(numbers)
        if not samples:
            return []
        begins_fresh = self._survey.roles[numbers[0]] is Role.FRESH_START
        if not begins_fresh or len(samples) > MAX_HELD_SAMPLES or not self._survey.discarded.isdisjoint(numbers):
            return self._whole(group)
        last = max(samples)
        roles = self._survey.roles
        needed = [each for each in group if each[0] <= last and (roles[each[0]] is not Role.LEAF or each[0] in samples)]
        return [each for each in self._whole(needed) if each[0] in samples]

    def _whole(self, group: list[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Yield every frame of a group. Raises _Unsound where one doesn't come, or comes damaged."""
        missing = {number for number, _ in group} - self._survey.discarded
        for packet in [*(packet for _, packet in group), None]:
            for frame in self._decode(packet):
                missing.discard(frame.pts)
                yield frame.pts, frame
            if any(self._faults.values()):
                raise _Unsound
        if missing:
            raise _Unsound
        self._decoder.flush_buffers()


def _kept(packet: Any) -> Any:
    """Return a packet that isn't to be discarded. FFmpeg would where a fragment's clock was set back."""
    kept = av.Packet(bytes(packet))
    kept.pts, kept.dts, kept.time_base = packet.pts, packet.dts, packet.time_base
    return kept
