"""What is read of a packet's picture without decoding it, alike for every codec."""

from enum import Enum
from typing import NamedTuple

_KEPT_NUMBERS = 4096  # pictures wait for sixteen others at most, and numbers may be some apart
_SURE_PICTURES = 32  # pictures cut into the very same slices before one with fewer counts as torn


class Role(Enum):
    """A packet's picture among the others."""

    FRESH_START = "an IDR picture: nothing after it needs anything before it"
    REFERENCE = "others may need it"
    LEAF = "no other needs it"


class Picture(NamedTuple):
    """One packet's picture, and what it tells of those before it."""

    role: Role
    order: tuple[int, int] | None  # (period, number): pictures are shown in this order; None where that isn't known
    missing: int = 0  # pictures that this one needs and that never came, first noticed here; at least so many
    torn: bool = False  # a slice of it is missing
    new_parameters: bool = False  # it came with parameter sets other than those known before


class PeriodNumbers:
    """The numbers of a period's pictures, in order of decoding; notices where they begin anew.

    No two pictures of a period have the same number, and none is shown long after it was decoded. Where that is so
    nevertheless, the picture that began another period is missing.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A period begins with the next number."""
        self._lately: set[int] = set()
        self._highest: int | None = None

    def begin_anew(self, number: int) -> bool:
        """Take in the next number; return whether it is one of another period, which begins with it."""
        highest = number if self._highest is None else self._highest
        anew = number < highest and (number in self._lately or number < highest - _KEPT_NUMBERS)
        if anew:
            self.begin()
            highest = number
        self._lately.add(number)
        self._highest = max(number, highest)
        if len(self._lately) > 2 * _KEPT_NUMBERS:
            self._lately = {each for each in self._lately if each >= self._highest - _KEPT_NUMBERS}
        return anew


class SliceLayout:
    """Where pictures are cut into slices; notices one that lacks some of them.

    Encoders that cut at fixed places cut every picture alike. One whose slices begin at only some of those places has
    lost the others. Where cuts follow the content, pictures soon differ, and nothing is said.
    """

    def __init__(self) -> None:
        self._usual: list[int] | None = None
        self._alike = 0
        self._varies = False

    def is_torn(self, starts: list[int]) -> bool:
        """Take in where the next picture's slices begin, in order; return whether it lacks any."""
        if starts == self._usual:
            self._alike += 1
        elif self._usual is None:
            self._usual = starts
        elif not self._varies:
            fewer = len(starts) < len(self._usual) and set(starts) < set(self._usual)
            if fewer and self._alike >= _SURE_PICTURES:
                return True
            self._varies = True
        return False
