"""When a clip's frames are shown, although some of their times are wrong, and which of them are samples.

Times are in ticks of the stream. A frame with a wild time is left out; a jump in time is believed as soon as two frames
bear it out: forward it keeps its length, back the numbering goes on at the next sample.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from math import inf
from statistics import median_low

WILD = "frames without a sensible time"
BACK = "jumps back in time"
FORWARD = "jumps forward in time"
MISSING = "frames missing from even times"
STANDING = "frames that bear the time of the one before"

# Times are even where nine steps in ten are the median step, give or take a tenth or a tick; then a longer step is a
# hole, and one of JUMP_SECONDS or more a jump. Of uneven times only a far longer step is one.
EVEN_SHARE = 0.9
FEWEST_EVEN_STEPS = 8
JUMP_SECONDS, EVEN_JUMP_STEPS = 1, 3
UNEVEN_JUMP_SECONDS, UNEVEN_JUMP_STEPS = 5, 20

# What it costs to explain the times: by leaving a frame out, or by a jump. A jump costs more than a frame and less than
# two, so a lone frame is left out and two are believed; a second jump forward on the heels of the first costs less,
# because frames far apart may well follow each other.
_LEFT_OUT, _FORWARD, _FORWARD_AGAIN, _BACK = 1.0, 1.2, 0.5, 1.5
_HOLE = 0.05  # of two explanations that cost the same, the one without a hole
_MOST_LEFT_OUT_AT_ONCE = 2  # more would cost more than a jump there and one back


class Timeline:
    """The times of a clip's frames in order of presentation, None for a frame without one.

    `ticks_a_second` is the stream's; `paused` returns how many ticks between two times the container itself states as a
    pause, which is no fault. `first_is_moved` says that the first time may have been moved to the clip's start, as
    FFmpeg writes fragmented files whose sound begins earlier: one too early for even times is put right in `times`.
    `believed` are the places of the frames whose times are believed, with those times, in order. `faults` counts what
    is wrong with the times, in words; `longest_jump` is in seconds, 0 for none. `is_in_order` says whether they are
    right as they come: no frame left out, no jump back.
    """

    def __init__(
        self,
        times: Sequence[int | None],
        ticks_a_second: Fraction,
        paused: Callable[[int, int], int] | None = None,
        *,
        first_is_moved: bool = False,
    ) -> None:
        known = [number for number, at in enumerate(times) if at is not None]
        self._at = [at for at in times if at is not None]
        steps = [later - earlier for earlier, later in pairwise(self._at)]
        self._usual = median_low([step for step in steps if step > 0] or [1])
        self._is_even = _are_even(steps, self._usual, max(1, self._usual // 10))
        self._rounding = 0 if _are_even(steps, self._usual, 0) else 1  # by how many ticks even times are rounded
        if first_is_moved and self._is_even and 2 * steps[0] > 3 * self._usual:
            self._at[0] = self._at[1] - self._usual
        self.times: list[int | None] = [None] * len(times)
        for place, at in zip(known, self._at, strict=True):
            self.times[place] = at
        self._jump = self._shortest_jump(ticks_a_second)
        self._paused = paused
        chosen = self._believed() if any(self._is_odd(*pair) for pair in pairwise(self._at)) else range(len(known))
        self.believed = [(known[number], self._at[number]) for number in chosen]
        self.faults: Counter[str] = Counter()
        self.longest_jump = 0.0
        self._count_faults(len(times), ticks_a_second)
        self.is_in_order = not (self.faults[WILD] or self.faults[BACK])

    def _shortest_jump(self, ticks_a_second: Fraction) -> int:
        if self._is_even:
            return max(int(JUMP_SECONDS * ticks_a_second), EVEN_JUMP_STEPS * self._usual)
        return max(int(UNEVEN_JUMP_SECONDS * ticks_a_second), UNEVEN_JUMP_STEPS * self._usual)

    def _is_jump(self, earlier: int, later: int) -> bool:
        return later - earlier > self._jump and self._unstated(earlier, later) > self._jump

    def _unstated(self, earlier: int, later: int) -> int:
        """Return the ticks from one time to a later one that aren't a stated pause."""
        return later - earlier - (self._paused(earlier, later) if self._paused else 0)

    def _is_odd(self, earlier: int, later: int) -> bool:
        return later < earlier or self._is_jump(earlier, later)

    def _believed(self) -> list[int]:
        """Return the numbers of the frames whose times are believed: the cheapest explanation of all.

        A shortest path over (frame, whether the step to it was a jump forward).
        """
        at, count = self._at, len(self._at)
        cost = [[inf, inf] for _ in at]
        came_from: list[list[tuple[int, int]]] = [[(-1, 0), (-1, 0)] for _ in at]
        for later in range(count):
            if later <= _MOST_LEFT_OUT_AT_ONCE:
                cost[later][0] = later * _LEFT_OUT
            for earlier in range(max(later - 1 - _MOST_LEFT_OUT_AT_ONCE, 0), later):
                left_out = later - earlier - 1
                for jumped in (0, 1):
                    step, jumps = self._step(at[earlier], at[later], left_out, bool(jumped))
                    total = cost[earlier][jumped] + left_out * _LEFT_OUT + step
                    if total < cost[later][jumps]:
                        cost[later][jumps], came_from[later][jumps] = total, (earlier, jumped)
        ends = range(max(count - 1 - _MOST_LEFT_OUT_AT_ONCE, 0), count)
        _, number, jumped = min((cost[end][j] + (count - 1 - end) * _LEFT_OUT, end, j) for end in ends for j in (0, 1))
        path = []
        while number >= 0:
            path.append(number)
            number, jumped = came_from[number][jumped]
        return path[::-1]

    def _step(self, earlier: int, later: int, left_out: int, jumped: bool) -> tuple[float, int]:
        """Return what a step over so many left-out frames costs, and 1 if it is a jump forward."""
        if later < earlier:
            return _BACK, 0
        if self._is_jump(earlier, later):
            return (_FORWARD_AGAIN if jumped else _FORWARD), 1
        return (_HOLE if self._missing(earlier, later, left_out) else 0.0), 0

    def _missing(self, earlier: int, later: int, left_out: int) -> int:
        """Return how many frames are missing between two whose times would be even."""
        if not self._is_even or 2 * (later - earlier - self._rounding) <= 3 * self._usual:
            return 0
        step = self._unstated(earlier, later)
        return max(round(step / self._usual) - 1 - left_out, 0)

    def _count_faults(self, count: int, ticks_a_second: Fraction) -> None:
        self.faults[WILD] = count - len(self.believed)
        for (number, earlier), (next_number, later) in pairwise(self.believed):
            if later < earlier:
                self.faults[BACK] += 1
            elif self._is_jump(earlier, later):
                self.faults[FORWARD] += 1
                self.longest_jump = max(self.longest_jump, float(self._unstated(earlier, later) / ticks_a_second))
            elif later == earlier:
                self.faults[STANDING] += self._is_even and self._usual > 3
            else:
                self.faults[MISSING] += self._missing(earlier, later, next_number - number - 1)

    def samples(self, origin: int, rate: Fraction) -> list[int | None]:
        """Return for each frame the number of the sample whose time it falls into, None for a frame that is left out.

        Times count from `origin`; what is shown before it has a negative number. `rate` is in samples a tick.
        """
        numerator, denominator = rate.as_integer_ratio()
        numbers: list[int | None] = [None] * len(self.times)
        offset, before = -origin, None
        for place, at in self.believed:
            if before is not None and at < before[0]:
                offset = -(-(before[1] + 1) * denominator // numerator) - at  # the next sample's first tick
            number = (at + offset) * numerator // denominator
            numbers[place] = number
            before = (at, number)
        return numbers


def _are_even(steps: Sequence[int], usual: int, tolerance: int) -> bool:
    if len(steps) < FEWEST_EVEN_STEPS:
        return False
    return sum(abs(step - usual) <= tolerance for step in steps) >= EVEN_SHARE * len(steps)
