"""What is read of a packet's picture without decoding it, alike for every codec."""

from enum import Enum
from typing import NamedTuple

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
