"""AV1's headers as far as they tell what a frame needs: a sequence's and a frame's (AV1 specification, 5.5 and 5.9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.media.bitstreams.bit_reader import BitReader

KEY, INTER, INTRA_ONLY, SWITCH = range(4)
SLOTS = 8  # pictures that a decoder holds, NUM_REF_FRAMES
_REFERENCES = 7  # of a frame, REFS_PER_FRAME
_EACH_FRAME_SAYS = 2  # SELECT_SCREEN_CONTENT_TOOLS, SELECT_INTEGER_MV


@dataclass(frozen=True, slots=True)
class _Timing:
    """Lengths in bits of what the decoder model adds to frames' headers."""

    presentation_time: int = 0
    removal_time: int = 0
    removal_points: Sequence[int] = ()  # operating_point_idc of those points whose removal times frames state


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """What frames' headers are read by."""

    still: bool  # reduced_still_picture_header
    timing: _Timing
    frame_id_bits: int
    frame_id_delta_bits: int
    screen_content: int
    integer_motion: int
    order_bits: int


class FrameHeader(NamedTuple):
    """The beginning of a frame's header."""

    kind: int = KEY
    shows: int | None = None  # the slot whose picture is shown, in place of a new one
    is_shown: bool = True
    may_be_shown: bool = False  # by a later header that names its slot
    order_hint: int = 0
    refreshed: int = 0  # the slots that hold this frame from now on, a bit each
    slot_hints: Sequence[int] = ()  # the order hint that each slot should hold
    references: Sequence[int] = ()  # slots


def read_sequence_header(data: bytes) -> SequenceHeader:
    """Read sequence_header_obu (5.5.1), up to what frames' headers need. Raises Unreadable."""
    bits = BitReader(data)
    bits.skip(4)  # profile, still_picture
    still = bits.flag()
    timing = _Timing()
    if still:
        bits.skip(5)
    else:
        timing = _read_operating_points(bits)
    width_bits, height_bits = bits.bits(4) + 1, bits.bits(4) + 1
    bits.skip(width_bits + height_bits)
    id_delta_bits = id_bits = 0
    if not still and bits.flag():
        id_delta_bits = bits.bits(4) + 2
        id_bits = bits.bits(3) + id_delta_bits + 1
    bits.skip(3)
    if still:
        return SequenceHeader(True, timing, 0, 0, _EACH_FRAME_SAYS, _EACH_FRAME_SAYS, 0)
    bits.skip(4)
    has_order = bits.flag()
    bits.skip(2 * has_order)
    screen_content = _EACH_FRAME_SAYS if bits.flag() else bits.flag()
    integer_motion = _EACH_FRAME_SAYS
    if screen_content and not bits.flag():
        integer_motion = bits.flag()
    order_bits = bits.bits(3) + 1 if has_order else 0
    return SequenceHeader(False, timing, id_bits, id_delta_bits, screen_content, integer_motion, order_bits)


def _read_operating_points(bits: BitReader) -> _Timing:
    """Read from timing_info_present_flag up to the last operating point."""
    even = delay_bits = removal_bits = presentation_bits = 0
    if bits.flag():
        bits.skip(64)
        even = bits.flag()
        if even:
            bits.ue()  # uvlc() is coded like it
        if bits.flag():
            delay_bits = bits.bits(5) + 1
            bits.skip(32)
            removal_bits, presentation_bits = bits.bits(5) + 1, bits.bits(5) + 1
    display_delays = bits.flag()
    points = []
    for _ in range(bits.bits(5) + 1):
        point = bits.bits(12)
        if bits.bits(5) > 7:
            bits.flag()
        if delay_bits and bits.flag():
            points.append(point)
            bits.skip(2 * delay_bits + 1)
        if display_delays and bits.flag():
            bits.skip(4)
    return _Timing(0 if even else presentation_bits, removal_bits, points)


def read_frame_header(data: bytes, sequence: SequenceHeader, temporal_id: int, spatial_id: int) -> FrameHeader:
    """Read uncompressed_header (5.9.2) up to the frame's references. Raises Unreadable."""
    bits = BitReader(data)
    if sequence.still:
        return FrameHeader(refreshed=(1 << SLOTS) - 1)
    timing = sequence.timing
    if bits.flag():
        return FrameHeader(shows=bits.bits(3))
    kind, is_shown = bits.bits(2), bits.flag()
    if is_shown:
        bits.skip(timing.presentation_time)
    may_be_shown = kind != KEY if is_shown else bits.flag()
    fresh = kind == KEY and is_shown
    resilient = kind == SWITCH or fresh or bits.flag()
    bits.flag()
    _pass_screen_content(bits, sequence)
    bits.skip(sequence.frame_id_bits)
    if kind != SWITCH:
        bits.flag()  # frame_size_override_flag
    order_hint = bits.bits(sequence.order_bits)
    is_intra = kind in (KEY, INTRA_ONLY)
    if not is_intra and not resilient:
        bits.skip(3)
    if timing.removal_time and bits.flag():
        for point in timing.removal_points:
            if not point or (point >> temporal_id & 1 and point >> spatial_id + 8 & 1):
                bits.skip(timing.removal_time)
    everything = (1 << SLOTS) - 1
    refreshed = everything if kind == SWITCH or fresh else bits.bits(SLOTS)
    slot_hints: Sequence[int] = ()
    if resilient and sequence.order_bits and not (is_intra and refreshed == everything):
        slot_hints = [bits.bits(sequence.order_bits) for _ in range(SLOTS)]
    references = [] if is_intra else _read_references(bits, sequence)
    return FrameHeader(kind, None, bool(is_shown), bool(may_be_shown), order_hint, refreshed, slot_hints, references)


def _pass_screen_content(bits: BitReader, sequence: SequenceHeader) -> None:
    allowed = bits.flag() if sequence.screen_content == _EACH_FRAME_SAYS else sequence.screen_content
    if allowed and sequence.integer_motion == _EACH_FRAME_SAYS:
        bits.flag()


def _read_references(bits: BitReader, sequence: SequenceHeader) -> list[int]:
    """Return the slots that a frame names; where it names only two, the others follow from those (7.8)."""
    if sequence.order_bits and bits.flag():
        return [bits.bits(3), bits.bits(3)]
    found = []
    for _ in range(_REFERENCES):
        found.append(bits.bits(3))
        bits.skip(sequence.frame_id_delta_bits)
    return found
