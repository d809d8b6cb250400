"""Counting H.264's pictures: what is missing between them, and the order in which they are shown (7.4.3, 8.2.1)."""

from data_prep.media.bitstreams.bit_reader import Unreadable
from data_prep.media.bitstreams.coded_picture import PeriodNumbers
from data_prep.media.bitstreams.h264_headers import IDR_SLICE, SetPairs, Slice, empties_references
from data_prep.media.bitstreams.nal_units import unescaped


class H264Numbers:
    """Takes in pictures, frames or fields, in order of decoding."""

    def __init__(self) -> None:
        self._begun = False
        self._previous: int | None = None  # frame_num of the last reference picture, PrevRefFrameNum
        self._previous_slice: tuple[bytes, SetPairs] | None = None  # its own, unless it was an IDR picture
        self._first_field: Slice | None = None  # that the next picture may complete
        self._open_start: int | None = (
            None  # the number of the first picture of all, where that is an intra picture but no IDR one
        )
        self._period = 0
        self._numbers = PeriodNumbers()
        self._order_known = True
        self._order_msb = self._order_lsb = 0
        self._frame_num = self._frame_num_offset = 0  # of the last picture of all

    def take(self, read: Slice, unit: bytes, sets: SetPairs) -> tuple[int, tuple[int, int] | None]:
        """Take in the next picture, by its first slice.

        `unit` holds the slice's header. Returns how many reference pictures are missing before it, and its (period,
        number) in the order of presentation, None where that isn't known.
        """
        is_idr, is_reference = unit[0] & 0b11111 == IDR_SLICE, bool(unit[0] & 0b1100000)
        is_second = self._completes(read)
        self._first_field = read if read.field and not is_second else None
        missing = 0
        if is_idr and not is_second:
            self._begin_period()
        elif not is_second:
            missing = self._missing(read, is_reference)
        order = self._order(read, is_reference)
        if order is not None and not is_second and read.sps.order_type == 0 and self._numbers.begin_anew(order):
            missing = max(missing, 1)
            self._period += 1
        if not self._begun:
            self._begun, self._open_start = True, order if read.is_intra and not is_idr else None
        elif self._open_start is not None and not read.is_intra and order is not None and order < self._open_start:
            missing, self._open_start = max(missing, 1), None
        if is_reference:
            self._previous = read.frame_num
            self._previous_slice = None if is_idr else (unit, sets)
        return missing, (self._period, order) if order is not None else None

    def lose_track(self) -> None:
        """A picture's header couldn't be read: what was counted up to it tells nothing of the next."""
        self._begun, self._previous, self._first_field = True, None, None

    def _completes(self, read: Slice) -> bool:
        """Whether this is the second field of the frame that the last picture began."""
        first = self._first_field
        return first is not None and read.field == 3 - first.field and read.frame_num == first.frame_num

    def _begin_period(self) -> None:
        self._period += 1
        self._numbers.begin()
        self._order_msb = self._order_lsb = 0
        self._frame_num = self._frame_num_offset = 0
        self._order_known, self._open_start = True, None

    def _missing(self, read: Slice, is_reference: bool) -> int:
        """Return how many reference pictures lie between the last one and this picture, at least."""
        sps, found, previous = read.sps, read.frame_num, self._previous
        largest = (1 << sps.frame_num_bits) - 1
        if previous is None:
            return int(not self._begun and not read.is_intra)
        if found == ((previous + 1) & largest) and (previous or self._previous_slice is None):
            return 0
        if found == previous and not is_reference:  # not allowed, but nothing is missing where leaves are numbered so
            return 0
        if self._last_emptied():
            self._order_known, previous = False, 0
            if found <= 1:
                return 0
        gap = (found - previous - 1) & largest
        if sps.gaps_allowed or not gap:
            return 0
        self._previous, self._previous_slice = (found - 1) & largest, None
        return gap if gap <= largest // 2 else 1  # backwards: an IDR picture is missing, and nobody knows what else

    def _last_emptied(self) -> bool:
        """Whether the last reference picture began the numbers anew without being an IDR picture."""
        if self._previous_slice is None:
            return False
        try:
            unit, sets = self._previous_slice
            return empties_references(unescaped(unit), sets)
        except Unreadable:
            return False

    def _order(self, read: Slice, is_reference: bool) -> int | None:
        """Return the picture's order count (8.2.1), of a frame the lower of its fields' (8.2.1, equation 8-1)."""
        sps = read.sps
        if read.frame_num < self._frame_num:
            self._frame_num_offset += 1 << sps.frame_num_bits
        self._frame_num = read.frame_num
        if not self._order_known or sps.order_type == 1:
            return None
        if sps.order_type == 2:
            return 2 * (self._frame_num_offset + read.frame_num) - (not is_reference)
        size, lsb, msb = 1 << sps.order_bits, read.order_lsb, self._order_msb
        if not self._begun:
            self._order_lsb = lsb
        if lsb < self._order_lsb and self._order_lsb - lsb >= size // 2:
            msb += size
        elif lsb > self._order_lsb and lsb - self._order_lsb > size // 2:
            msb -= size
        if is_reference:
            self._order_msb, self._order_lsb = msb, lsb
        return msb + lsb + min(read.bottom_delta, 0)
