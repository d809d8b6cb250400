"""What a clip's packets say before anything is decoded: times, order of presentation, what is missing, what to skip."""

from array import array
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from data_prep.media.bitstreams.coded_picture import Picture, Role
from data_prep.media.bitstreams.pictures import DisplayOrder, PictureReader
from data_prep.media.mp4.edit_lists import EditList
from data_prep.media.timeline import Timeline

NO_TIME = -(2**63)
MISSING_REFERENCES = "pictures missing that others need"
MISSING_PICTURES = "pictures missing from an even order"
OUT_OF_ORDER = "pictures decoded out of order"
REPEATED = "packets that repeat the one before"
TORN = "pictures that lack a slice"

# Without headers that tell the order of presentation it is that of the times, if no packet is further from its place
# in the file than a decoder could put right: H.264 and HEVC hold at most so many pictures back.
MOST_REORDERED = 16

_SHORTEST_REPEATED = 32  # bytes; a shorter packet may say no more than that a picture is to be shown once more


@dataclass(frozen=True)
class Plan:
    """Which frame is which sample.

    `shown` are the frames' numbers in order of presentation, a number being a packet's place in the file. By number,
    `samples` is the sample whose time the frame falls into, None for one that is left out, and `ranks` its place in
    presentation. Times count from `origin`; `first_time` is that of the file's first packet. Both are in ticks.
    """

    shown: list[int]
    samples: list[int | None]
    ranks: list[int]
    timeline: Timeline
    first_time: int
    origin: int

    def begins_with(self, number: int) -> bool:
        """Whether times still count from the same origin where frame `number` is the first that can be decoded."""
        return min(self.first_time, self.timeline.times[self.ranks[number]] or 0) == self.origin

    def firsts(self) -> set[int]:
        """Return the first frame of every sample's time."""
        firsts: dict[int, int] = {}
        for number in self.shown:
            sample = self.samples[number]
            if sample is not None and sample >= 0:
                firsts.setdefault(sample, number)
        return set(firsts.values())


class Survey:
    """A clip's packets as their headers describe them, one after the other as they stand in the file.

    `reader` is None for a codec whose headers aren't read; `edits` say when frames are shown, where that isn't the time
    that packets bear. `discarded` are the numbers of frames that aren't shown, `faults` counts what is known to be
    missing, and `is_skippable` says, of H.264, whether frames may be left undecoded without a change to any other.
    """

    def __init__(
        self,
        reader: PictureReader | None = None,
        edits: EditList | None = None,
        *,
        is_h264: bool = False,
        is_fragmented: bool = False,
    ) -> None:
        self._reader = reader
        self._edits = edits
        self._is_fragmented = is_fragmented
        self._is_h264 = is_h264
        self.times = array("q")
        self._periods, self._numbers = array("q"), array("q")
        self._before: Any = None
        self._display = DisplayOrder()
        self._has_order = reader is not None
        self.roles: list[Role] = []
        self.discarded: set[int] = set()
        self.faults: Counter[str] = Counter()
        self.is_skippable = is_h264 and reader is not None

    def __len__(self) -> int:
        return len(self.times)

    def add(self, packet: Any) -> None:
        """Take in the next packet."""
        at = packet.pts
        if self._edits is not None and at is not None:
            at = self._edits.shown_at(at)
        if packet.is_discard or (at is None and packet.pts is not None):
            self.discarded.add(len(self))
        self.times.append(NO_TIME if at is None else at)
        if self._reader is not None:
            self.faults[REPEATED] += self._repeats(packet)
            parameters = _new_parameters(packet)
            picture = self._reader.read(memoryview(packet), parameters)
            self._add_picture(picture)
            self.is_skippable &= parameters is None

    def _repeats(self, packet: Any) -> bool:
        """Whether a packet is the very one before: pictures' numbers make sound ones differ.

        Of keyframes those of H.264 alone do, by idr_pic_id (ITU-T H.264, 7.4.3).
        """
        before, self._before = self._before, packet
        if before is None or packet.size != before.size or packet.size < _SHORTEST_REPEATED:
            return False
        if packet.is_keyframe and not self._is_h264:
            return False
        return memoryview(packet) == memoryview(before)

    def _add_picture(self, picture: Picture | None) -> None:
        if picture is None or picture.order is None:
            self._has_order = False
        if picture is None:
            self.roles.append(Role.REFERENCE)
            self.is_skippable = False
            return
        self.roles.append(picture.role)
        if len(self) - 1 not in self.discarded:  # what an edit list hides may lean on what was cut away
            self.faults[MISSING_REFERENCES] += picture.missing
            self.faults[TORN] += picture.torn
        self.is_skippable &= not picture.new_parameters
        if self._has_order and picture.order is not None:
            self._periods.append(picture.order[0])
            self._numbers.append(picture.order[1])
            self._display.add(picture.order)

    def finish(self) -> None:
        """Count what only the whole order of pictures tells."""
        if self._has_order:
            self.faults[MISSING_PICTURES] = self._display.holes()
        self.is_skippable &= not any(self.faults.values())

    def _shown(self) -> list[int]:
        return [number for number in range(len(self)) if number not in self.discarded]

    def _key(self, number: int) -> tuple[int, int]:
        return self._periods[number], self._numbers[number]

    def plan(self, rate: Fraction, ticks_a_second: Fraction) -> Plan | None:
        """Return the plan of a clip whose times are right, None where only decoding tells the order of presentation.

        `rate` is in samples a tick.
        """
        shown = sorted(self._shown(), key=self._key) if self._has_order else self._shown_by_time()
        if shown is None:
            return None
        plan = self.plan_of(shown, set(), rate, ticks_a_second)
        return plan if plan.timeline.is_in_order else None

    def _shown_by_time(self) -> list[int] | None:
        shown = self._shown()
        if any(self.times[number] == NO_TIME for number in shown):
            return None
        order = sorted(range(len(shown)), key=lambda place: self.times[shown[place]])
        apart = max((abs(place - other) for other, place in enumerate(order)), default=0)
        return [shown[place] for place in order] if apart <= MOST_REORDERED else None

    def plan_of(self, shown: list[int], undecoded: set[int], rate: Fraction, ticks_a_second: Fraction) -> Plan:
        """Return the plan of frames in order of presentation, `undecoded` among them.

        Samples count from the first packet of the file whose time is believed, or from a decoded frame before it.
        """
        timeline = Timeline(
            [None if self.times[number] == NO_TIME else self.times[number] for number in shown],
            ticks_a_second,
            self._edits.paused if self._edits else None,
            first_is_moved=self._is_fragmented,
        )
        believed = [(shown[place], at) for place, at in timeline.believed]
        first_time = min(believed, default=(0, 0))[1]
        earliest_time = next((at for number, at in believed if number not in undecoded), first_time)
        origin = min(first_time, earliest_time)
        samples: list[int | None] = [None] * len(self)
        ranks = [0] * len(self)
        for rank, (number, sample) in enumerate(zip(shown, timeline.samples(origin, rate), strict=True)):
            samples[number], ranks[number] = sample, rank
        return Plan(shown, samples, ranks, timeline, first_time, origin)

    def with_undecoded(self, decoded: list[int]) -> tuple[list[int], set[int]]:
        """Return all frames in order of presentation, given the decoded ones in theirs, and those that weren't decoded.

        Counts those that come in another order than their numbers tell. One that wasn't decoded stands near the one
        before it in the file, by its time.
        """
        if self._has_order:
            self.faults[OUT_OF_ORDER] = sum(
                self._key(later) < self._key(earlier) for earlier, later in pairwise(decoded)
            )
        places = {number: place for place, number in enumerate(decoded)}
        keyed = [((place, 1, 0), number) for number, place in places.items()]
        undecoded, near = set(), 0
        for number in range(len(self)):
            if number in places:
                near = places[number]
            elif number not in self.discarded:
                undecoded.add(number)
                keyed.append(((self._place(number, decoded, near), 0, self.times[number]), number))
        return [number for _, number in sorted(keyed)], undecoded

    def _place(self, number: int, decoded: list[int], near: int) -> int:
        """Return the place of the first frame around `near` that is shown later than a frame that wasn't decoded."""
        around = range(max(near - MOST_REORDERED, 0), min(near + MOST_REORDERED + 1, len(decoded)))
        later = (place for place in around if self.times[decoded[place]] > self.times[number])
        return next(later, around.stop)


def _new_parameters(packet: Any) -> bytes | None:
    """Return the decoder configuration that begins with a packet: an mp4 may hold several, by sample entries."""
    if not packet.has_sidedata("new_extradata"):
        return None
    return next(bytes(data) for data in packet.iter_sidedata() if data.data_type == "new_extradata")
