"""Decoding a clip's packets, after they were surveyed: every frame, or what the samples of an H.264 clip need.

What is decoded comes out as it would if all were. At the first sign of damage all must be, by another decoder: what one
makes up for what is missing depends on all that it has seen.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import av

from data_prep.media.bitstreams.coded_picture import Role
from data_prep.media.survey import Plan, Survey

# Where only samples are decoded, a group of pictures is held until it is decoded, and its samples until it is known
# that all are whole. A clip with a larger group is decoded as it comes, every frame; so is a group with more samples.
MAX_HELD_BYTES = 64 * 2**20
MAX_HELD_SAMPLES = 16

_UNDECODABLE = "undecodable packets"

Sampled = Iterator[tuple[int | None, Any]]


class Unsound(Exception):
    """The clip can't be decoded in this way: every frame must be, or the order of presentation isn't as planned."""


class Decoding:
    """A decoder's one pass over a surveyed clip's packets, which come as they did to the survey.

    `faults` counts, in words, what was found damaged; it is complete once the pass has ended.
    """

    def __init__(self, decoder: Any, survey: Survey) -> None:
        self.faults: Counter[str] = Counter()
        self._decoder = decoder
        self._survey = survey

    def every_frame(self, packets: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield (its packet's number, frame) as they are decoded, each packet's first one."""
        came = bytearray(len(self._survey))
        for _, packet in chain(self._numbered(packets), [(0, None)]):
            for frame in self._decode(packet):
                if not came[frame.pts] and frame.pts not in self._survey.discarded:
                    came[frame.pts] = True
                    yield frame.pts, frame
        without = len(came) - sum(came) - len(self._survey.discarded) - self.faults[_UNDECODABLE]
        self.faults["packets that gave no frame"] += max(without, 0)

    def as_planned(self, packets: Iterable[Any], plan: Plan) -> Sampled:
        """Decode every frame. Raises Unsound where they don't come in the planned order."""
        rank = -1
        for number, frame in self.every_frame(packets):
            if plan.ranks[number] < rank or (rank < 0 and not plan.begins_with(number)):
                raise Unsound
            rank = plan.ranks[number]
            yield plan.samples[number], frame

    def only_needed(self, packets: Iterable[Any], plan: Plan) -> Sampled:
        """Decode what an H.264 clip's samples need. Raises Unsound where every frame must be decoded."""
        wanted = plan.firsts()
        for group in self._groups(packets):
            for number, frame in self._group(group, wanted):
                if number in wanted:
                    yield plan.samples[number], frame
        if self.faults.total():
            raise Unsound

    def _groups(self, packets: Iterable[Any]) -> Iterator[list[tuple[int, Any]]]:
        """Yield the packets of each group of pictures, from an IDR picture up to the next, with their numbers."""
        group: list[tuple[int, Any]] = []
        held_bytes = 0
        for number, packet in self._numbered(packets):
            if self._survey.roles[number] is Role.FRESH_START:
                yield group
                group, held_bytes = [], 0
            group.append((number, packet))
            held_bytes += packet.size
            if held_bytes > MAX_HELD_BYTES:
                raise Unsound
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
        """Yield every frame of a group. Raises Unsound where one doesn't come, or comes damaged."""
        missing = {number for number, _ in group} - self._survey.discarded
        for packet in [*(packet for _, packet in group), None]:
            for frame in self._decode(packet):
                missing.discard(frame.pts)
                yield frame.pts, frame
            if any(self.faults.values()):
                raise Unsound
        if missing:
            raise Unsound
        self._decoder.flush_buffers()

    def _numbered(self, packets: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the packets with their numbers, which they bear in place of their times, and so do their frames."""
        count = 0
        for number, packet in enumerate(packets):
            packet.pts = number
            yield number, packet
            count += 1
        self.faults["packets that came the first time and not again"] += len(self._survey) - count

    def _decode(self, packet: Any) -> list[Any]:
        """Decode a packet, or with None all that the decoder still holds."""
        try:
            frames = self._decoder.decode(packet)
        except (av.FFmpegError, ValueError):  # one packet is lost; the decoder goes on with the next
            self.faults[_UNDECODABLE] += 1
            return []
        self.faults["damaged frames"] += sum(frame.is_corrupt for frame in frames)
        return [frame for frame in frames if frame.pts in range(len(self._survey))]
