"""A clip's frames, so many a second: by timestamp, upright, RGB, whatever the headers say.

A first pass over the packets, nothing decoded, tells when and in which order frames are shown, what is missing, and
which frames are samples. Of a sound H.264 clip, frames that are no samples and that no sample needs aren't decoded; at
the first sign of damage the clip is decoded anew, every frame. Where packets don't tell the order of presentation, a
decoder does: such a clip is decoded twice.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from PIL import Image

from data_prep.media.bitstreams.pictures import picture_reader
from data_prep.media.decoding import Decoding, Sampled, Unsound
from data_prep.media.mp4.opening import open_mp4
from data_prep.media.pixels import Upright
from data_prep.media.survey import NO_TIME, Plan, Survey

# Packets are kept from the first pass to the next up to so many bytes; a larger clip is read again.
MAX_KEPT_BYTES = 16 * 2**20

# By which decoders notice more of what is damaged while nothing is said of sound clips: of single bits flipped, AV1's
# 99 of 100 instead of 84. HEVC's "explode" would notice 17 instead of 4, and stumbles over sound clips' messages (SEI).
_STRICTEST = {"libdav1d": {"strict": "very"}}


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
        self._decoder = self._stream.codec_context
        self._decoder.thread_count = 1  # the clips are what is decoded in parallel
        self._decoder.options = _STRICTEST.get(self._decoder.name, {})
        self._decoding = Decoding(self._decoder, self._survey)

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
        return +(self._left_out + self._survey.faults + times + self._decoding.faults + self._upright.faults)

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
            except Unsound:
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
        self._decoding = Decoding(self._decoder, survey)

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
            yield lambda: self._decoding.only_needed(self._packets(), plan)
        if plan:
            yield lambda: self._decoding.as_planned(self._packets(), plan)
        yield lambda: self._in_decoded_order(rate)

    def _start_anew(self) -> None:
        self._container.close()
        self._open()
        self._upright.reopen(self._stream)

    def _in_decoded_order(self, rate: Fraction) -> Sampled:
        """Decode every frame twice, first to learn the order in which they are shown."""
        decoded = [number for number, _ in self._decoding.every_frame(self._packets())]
        shown, undecoded = self._survey.with_undecoded(decoded)
        plan = self._plan = self._survey.plan_of(shown, undecoded, rate, 1 / self._stream.time_base)
        if not decoded:
            return
        self._start_anew()
        for number, frame in self._decoding.every_frame(self._packets()):
            yield plan.samples[number], frame

    def _packets(self) -> Iterable[Any]:
        """Return the packets anew, as they were surveyed."""
        return self._read(Counter()) if self._held is None else self._held


def _kept(packet: Any) -> Any:
    """Return a packet that isn't to be discarded. FFmpeg would where a fragment's clock was set back."""
    kept = av.Packet(bytes(packet))
    kept.pts, kept.dts, kept.time_base = packet.pts, packet.dts, packet.time_base
    return kept
