"""Pauses that an mp4 states: an edit list that shows nothing for a while, between two parts of what was recorded.

FFmpeg 8 shows the recording from its start once more for as long as such a pause lasts, and where frames are reordered
it shifts what follows by some frames or drops them. A clip with a pause is therefore opened without FFmpeg's reading of
the list, and this one's is applied.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from data_prep.media.mp4.boxes import Box, fields_of, find_boxes, ticks_a_second, track_box

_ENTRY = {0: ">Ii", 1: ">Qq"}  # by the box's version: duration in the movie's ticks, start in the track's or -1
_RATE_BYTES = 4
_REST = 2**62  # ticks
MAX_EDITS = 1000  # a longer list is left to FFmpeg


@dataclass(frozen=True)
class Edit:
    """A part of a track, from its tick `media` on, or nothing for None; shown from `start` to `end`, in its ticks."""

    media: int | None
    start: Fraction
    end: Fraction


@dataclass(frozen=True)
class EditList:
    """A track's edits with a pause among them."""

    edits: tuple[Edit, ...]

    def shown_at(self, media: int) -> int | None:
        """Return when a frame is shown, in the track's ticks from the clip's start, None for never.

        Rounded down, so that it stays on its side of every whole number of ticks.
        """
        for edit in reversed(self.edits):  # where rounding makes two of them overlap, the later one begins with a frame
            if edit.media is not None and 0 <= media - edit.media < edit.end - edit.start:
                return int((edit.start + media - edit.media) // 1)
        return None

    def paused(self, start: int, end: int) -> int:
        """Return how many ticks between two that `shown_at` gave are a stated pause."""
        paused = Fraction(0)
        for edit in self.edits:
            if edit.media is None:
                paused += max(min(edit.end, Fraction(end)) - max(edit.start, Fraction(start)), Fraction(0))
        return int(paused)


def edit_list(file: BinaryIO, moov: Box, track: int) -> EditList | None:
    """Return the edits of the track with a number, None without a pause between two of them."""
    trak = track_box(file, moov, track)
    lists = find_boxes(file, trak, "edts/elst") if trak else []
    if not trak or not lists:
        return None
    movie, media = ticks_a_second(file, moov, "mvhd"), ticks_a_second(file, trak, "mdia/mdhd")
    if not movie or not media:
        return None
    edits = _edits(fields_of(file, lists[0]), Fraction(media, movie))
    shown = [number for number, edit in enumerate(edits) if edit.media is not None]
    if not shown or all(edit.media is not None for edit in edits[shown[0] : shown[-1]]):
        return None
    return EditList(tuple(edits))


def _edits(fields: bytes, scale: Fraction) -> list[Edit]:
    """Read an edit list's fields; `scale` is the track's ticks in one of the movie's."""
    if len(fields) < 8 or fields[0] not in _ENTRY:
        return []
    form = _ENTRY[fields[0]]
    length = struct.calcsize(form) + _RATE_BYTES
    count = min(struct.unpack_from(">I", fields, 4)[0], (len(fields) - 8) // length)
    if count > MAX_EDITS:
        return []
    edits, at = [], Fraction(0)
    for number in range(count):
        duration, media = struct.unpack_from(form, fields, 8 + number * length)
        to_the_end = duration == 0 and number == count - 1  # as a clip that is still being written states it
        edits.append(Edit(media if media >= 0 else None, at, at + (_REST if to_the_end else duration * scale)))
        at = edits[-1].end
    return edits
