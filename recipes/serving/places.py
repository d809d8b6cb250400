"""How much may wait at once, in frames and in pixels."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from data_prep.media.images import MAX_IMAGE_PIXELS
from recipes.serving.refusals import Refused
from recipes.serving.turns import Frame

PIXELS_A_PLACE = 3840 * 2160  # 25 MB, decoded


class Places:
    """The places of a queue of at most `most` frames, from a request's first byte until the model takes its frames.

    An eighth of them is kept for callers that hold none, so that one who fills the queue shuts nobody out. What waits
    decoded has at most PIXELS_A_PLACE for each place, or is one frame. `seconds_a_frame` tells how fast places get
    free. All of it belongs to the event loop's thread.
    """

    def __init__(self, most: int, seconds_a_frame: Callable[[], float]) -> None:
        self.most = most
        self._seconds_a_frame = seconds_a_frame
        self._held = Counter[Hashable]()
        self._frames: set[Frame] = set()

    def waiting(self) -> int:
        """Return how many places are taken; a frame that the model has taken waits no longer."""
        return self._held.total() - sum(_is_taken(frame) for frame in self._frames)

    @contextmanager
    def taken(self, caller: Hashable) -> "Iterator[Place]":
        """Hold a place for a caller, and whatever is added to it. Raises Refused where none is free."""
        place = Place(self, caller)
        try:
            place.add(1)
            yield place
        finally:
            self._held[caller] -= place.count
            if not self._held[caller]:
                del self._held[caller]
            self._frames.difference_update(place.frames)

    def check(self, place: "Place", more: int) -> None:
        """Raise Refused unless so many places are free for that caller."""
        kept = self.most // 8 if self._held[place.caller] > place.count else 0
        if self.waiting() + more > self.most - kept:
            raise self.full()

    def check_pixels(self, frame: Frame) -> None:
        """Raise Refused where a frame has more pixels than may wait beside the others."""
        waiting = sum(_pixels(each) for each in self._frames if not _is_taken(each))
        if waiting + _pixels(frame) > max(self.most * PIXELS_A_PLACE, MAX_IMAGE_PIXELS):
            raise self.full()

    def full(self) -> Refused:
        """Return the refusal, with the seconds after which what waits now is answered."""
        seconds = max(math.ceil(self.waiting() * self._seconds_a_frame()), 1)
        return Refused(503, f"too many frames wait; ask again in {seconds} s", {"Retry-After": str(seconds)})


class Place:
    """The places that one request holds, and its frames."""

    def __init__(self, places: Places, caller: Hashable) -> None:
        self.caller = caller
        self.count = 0
        self.frames: list[Frame] = []
        self._places = places

    def add(self, count: int) -> None:
        """Hold so many places more. Raises Refused where they aren't free."""
        self._places.check(self, count)
        self.count += count
        self._places._held[self.caller] += count

    def put(self, frame: Frame) -> None:
        """Have a decoded frame wait in one of the places. Raises Refused where it is too large beside the others."""
        self._places.check_pixels(frame)
        self.frames.append(frame)
        self._places._frames.add(frame)


def _is_taken(frame: Frame) -> bool:
    return frame.p_unsafe.running() or frame.p_unsafe.done()


def _pixels(frame: Frame) -> int:
    return frame.image.width * frame.image.height
