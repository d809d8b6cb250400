"""Frames that wait for the model: which of them are answered together, and when. Imports no torch."""

from bisect import insort
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

from PIL import Image


@dataclass(eq=False)
class Frame:
    """A decoded frame that waits: whose it is, since when, and where its P(UNSAFE) goes.

    `came` is in seconds of whatever clock is asked. Once `p_unsafe` is cancelled, nobody wants the frame any more.
    """

    image: Image.Image
    caller: Hashable
    came: float
    p_unsafe: "Future[float]" = field(default_factory=Future)
    turn: int = 0


class Turns:
    """What waits, in the order in which it is to be answered.

    Callers take turns: of each the first frame, then of each the second. Who comes anew takes part from the turn that
    is under way, as start-time fair queueing has it (Goyal et al. 1996), so a caller that sends much at once makes none
    but itself wait. Frames are answered together with others of their size, which need no padding, in batches of a
    power of two or of `most`: a card computes few shapes of input, each of which is compiled or captured once.
    """

    def __init__(self, most: int, max_wait: float) -> None:
        self.most = most
        self.max_wait = max_wait
        self._waiting: list[Frame] = []
        self._lately = 1
        self._turn = 0
        self._last: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, frame: Frame) -> None:
        """Have a frame wait for its turn."""
        frame.turn = max(self._turn, self._last.get(frame.caller, -1) + 1)
        self._last[frame.caller] = frame.turn
        insort(self._waiting, frame, key=lambda each: (each.turn, each.came))

    def due(self, now: float, free_since: float) -> float | None:
        """Return in how many seconds a batch is to be taken by a model that is free, None where nothing waits.

        At once where as many wait as go together, or as there were when the last batch was taken: callers who were
        answered just now will ask again. Else as soon as any has waited for `max_wait` seconds for the others.
        """
        self._waiting = [frame for frame in self._waiting if not frame.p_unsafe.cancelled()]
        if not self._waiting:
            return None
        if len(self._together()) >= self.most or len(self._waiting) >= self._lately:
            return 0.0
        return max(max(self._waiting_since(), free_since) + self.max_wait - now, 0.0)

    def take(self) -> list[Frame]:
        """Take the next batch out; each frame's `p_unsafe` is running from here on. What was cancelled is left out."""
        together, self._lately = self._together(), len(self._waiting)
        batch = together[: most_together(len(together), self.most)]
        taken = set(batch)
        self._waiting = [frame for frame in self._waiting if frame not in taken]
        self._turn = max((frame.turn for frame in batch), default=self._turn)
        self._last = {caller: turn for caller, turn in self._last.items() if turn >= self._turn}
        return [frame for frame in batch if frame.p_unsafe.set_running_or_notify_cancel()]

    def _waiting_since(self) -> float:
        return min(frame.came for frame in self._waiting)

    def _together(self) -> list[Frame]:
        """Return the frames of the first one's size."""
        return [frame for frame in self._waiting if frame.image.size == self._waiting[0].image.size]


def batch_sizes(most: int) -> list[int]:
    """Return the sizes that batches of at most `most` frames have, the smallest first."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


def most_together(waiting: int, most: int) -> int:
    """Return how many of those that wait go together."""
    return max((size for size in batch_sizes(most) if size <= waiting), default=0)
