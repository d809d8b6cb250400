"""What an AV1 packet's frame needs and never came, read from headers (AV1 specification, 5.9 and 7.20).

A decoder holds eight frames, and a frame names the slots of those that it needs, not the frames. So a lost frame is
noticed by what needs it only where frames also state what every slot should hold (error_resilient_mode), and at the
beginning, where slots are empty. But every packet shows one frame, and these are numbered, so that each lost packet
leaves a hole in the order. None is left by a loss right before a key frame with which the numbers begin anew, by one of
more packets than half of what the numbers can count, or where the stream has no numbers (enable_order_hint).
"""

from typing import NamedTuple

from data_prep.media.bitstreams.av1_headers import (
    KEY,
    SLOTS,
    FrameHeader,
    SequenceHeader,
    read_frame_header,
    read_sequence_header,
)
from data_prep.media.bitstreams.bit_reader import Unreadable
from data_prep.media.bitstreams.coded_picture import Picture, Role

_VERSION = 0x81  # first byte of a decoder configuration record: a marker bit and version 1 (AV1 in ISOBMFF, 2.3.3)
_RECORD_BYTES = 4
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_HEADER_BYTES = 128  # hardly a frame's header is longer, up to its references
_NEAR = 8  # frames that may be lost before a key frame that goes on with the numbers


class _Obu(NamedTuple):
    kind: int
    temporal_id: int
    spatial_id: int
    first: int
    end: int


class _Slot(NamedTuple):
    order_hint: int
    is_key: bool
    may_be_shown: bool


def obus_of_configuration(extradata: bytes | None) -> bytes | None:
    """Return the OBUs of an AV1CodecConfigurationRecord, None for what is none."""
    if not extradata or len(extradata) < _RECORD_BYTES or extradata[0] != _VERSION:
        return None
    return extradata[_RECORD_BYTES:]


class Av1Reader:
    """Reads packets in order of decoding; a PictureReader (pictures.py)."""

    def __init__(self, configuration: bytes) -> None:
        self._sequence: SequenceHeader | None = None
        self._sequence_bytes = b""
        self._begun = self._new_parameters = False
        self._frames = _Frames()
        self._configure(configuration)

    def read(self, packet: memoryview, new_extradata: bytes | None = None) -> Picture | None:
        """Return the frame that a packet shows, None where it holds none or isn't made of whole OBUs."""
        if new_extradata is not None:
            configuration = obus_of_configuration(new_extradata)
            if configuration is None:
                return None
            self._configure(configuration)
        obus = _obus(packet)
        frames = [obu for obu in obus or () if obu.kind in (_FRAME_HEADER, _FRAME)]
        for obu in obus or ():
            if obu.kind == _SEQUENCE_HEADER:
                self._take_sequence(bytes(packet[obu.first : obu.end]))
        return self._picture(packet, frames) if frames else None

    def _configure(self, configuration: bytes) -> None:
        for obu in _obus(memoryview(configuration)) or ():
            if obu.kind == _SEQUENCE_HEADER:
                self._take_sequence(configuration[obu.first : obu.end])

    def _take_sequence(self, data: bytes) -> None:
        if data == self._sequence_bytes:
            return
        self._sequence_bytes, self._new_parameters = data, True
        try:
            self._sequence = read_sequence_header(data)
        except Unreadable:
            self._sequence = None

    def _picture(self, packet: memoryview, frames: list[_Obu]) -> Picture:
        # The configuration's own sequence header often isn't the stream's to the bit, as encoders write it beforehand.
        are_new, self._new_parameters = self._new_parameters and self._begun, False
        self._begun = True
        role, order, missing = Role.REFERENCE, None, 0
        try:
            for obu in frames:
                if self._sequence is None:
                    raise Unreadable("no sequence header")
                data = bytes(packet[obu.first : min(obu.end, obu.first + _HEADER_BYTES)])
                header = read_frame_header(data, self._sequence, obu.temporal_id, obu.spatial_id)
                if header.kind == KEY and header.is_shown and header.shows is None:
                    role = Role.FRESH_START
                lost, shown = self._frames.take(header, self._sequence.order_bits)
                missing, order = missing + lost, shown or order
        except Unreadable:
            order = None
        return Picture(role, order, missing, False, are_new)


def _obus(data: memoryview) -> list[_Obu] | None:
    """Return a packet's OBUs (5.3), None where it isn't made of whole ones."""
    found = []
    position, size = 0, len(data)
    while position < size:
        header = data[position]
        position += 1
        layers = 0
        if header & 0b100 and position < size:
            layers = data[position]
            position += 1
        length = size - position
        if header & 0b10:
            length, position = _leb128(data, position)
        if header & 0b10000000 or position + length > size:
            return None
        found.append(_Obu(header >> 3, layers >> 5, layers >> 3 & 0b11, position, position + length))
        position += length
    return found


def _leb128(data: memoryview, position: int) -> tuple[int, int]:
    """Return the number that begins at `position` and where it ends (4.10.5); past the packet for none."""
    value = 0
    for number, byte in enumerate(data[position : position + 8]):
        value |= (byte & 0b1111111) << 7 * number
        if not byte & 0b10000000:
            return value, position + number + 1
    return 0, len(data) + 1


class _Frames:
    """The frames that a decoder holds (7.20), and the number of the one shown last."""

    def __init__(self) -> None:
        self._slots: list[_Slot | None] = [None] * SLOTS
        self._period = self._number = 0

    def take(self, header: FrameHeader, order_bits: int) -> tuple[int, tuple[int, int] | None]:
        """Take in the next frame; return how many are missing, at least, and the (period, number) of what it shows."""
        if header.shows is not None:
            slot = self._slots[header.shows]
            if not slot or not slot.may_be_shown or self._step(slot.order_hint, order_bits) < 0:
                return 1, None  # what the slot should hold never came
            if slot.is_key:
                self._slots = [slot._replace(may_be_shown=False)] * SLOTS
            return 0, self._shown(slot.order_hint, order_bits, is_key=slot.is_key)
        missing = self._missing(header)
        slot = _Slot(header.order_hint, header.kind == KEY, header.may_be_shown)
        for number in range(SLOTS):
            if header.refreshed >> number & 1:
                self._slots[number] = slot
        if not header.is_shown:
            return missing, None
        begins = slot.is_key
        if self._period and not begins and self._step(slot.order_hint, order_bits) < 0:
            missing, begins = max(missing, 1), True  # the key frame with which the numbers began anew
        return missing, self._shown(slot.order_hint, order_bits, is_key=begins)

    def _missing(self, header: FrameHeader) -> int:
        """Fill the slots with what should be there, and return how many frames were not."""
        wanted = {hint for hint, slot in zip(header.slot_hints, self._slots, strict=False) if slot and slot[0] != hint}
        for number, hint in enumerate(header.slot_hints):
            slot = self._slots[number]
            if slot and slot.order_hint != hint:
                self._slots[number] = _Slot(hint, False, True)
        empty = [number for number in header.references if self._slots[number] is None]
        for number in empty:
            self._slots[number] = _Slot(header.order_hint, False, True)
        return len(wanted) + bool(empty)

    def _shown(self, hint: int, order_bits: int, *, is_key: bool) -> tuple[int, int] | None:
        if not order_bits:
            return None
        step = self._step(hint, order_bits)
        if not self._period or (is_key and not (hint and 0 < step <= _NEAR)):
            self._period, self._number = self._period + 1, hint
        else:
            self._number += step
        return self._period, self._number

    def _step(self, hint: int, order_bits: int) -> int:
        """Return how far a frame is from the one shown last."""
        size = 1 << order_bits
        return (hint - self._number + size // 2) % size - size // 2
