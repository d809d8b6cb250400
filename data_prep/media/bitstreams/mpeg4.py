"""When an MPEG-4 part 2 packet's picture is shown, read from its headers (ISO/IEC 14496-2, 6.2.3 to 6.2.5 and 6.3).

Pictures bear the encoder's own times, which go on evenly even where a recorder numbers anew what arrived: a lost one
leaves a hole among them, and the first one of a second, which alone tells that it has begun, leaves times that go back.
A picture lost before one that begins a group with a time code of its own may leave neither.
"""

from data_prep.media.bitstreams.bit_reader import BitReader, Unreadable
from data_prep.media.bitstreams.coded_picture import Picture, Role

_START = b"\0\0\1"
_LAYERS, _GROUP, _PICTURE = range(0x20, 0x30), 0xB3, 0xB6
_HEADER_BYTES = 64  # what is read of a header is shorter
_EXTENDED_ASPECT, _GREY_SHAPE = 15, 3
_VBV_BITS = 79
_INTRA, _B_PICTURE = 0, 2
_MOST_SECONDS = 60  # between two pictures


class Mpeg4Reader:
    """Reads packets in order of decoding; a PictureReader (pictures.py)."""

    def __init__(self, configuration: bytes) -> None:
        self._ticks_a_second = 0
        self._period = self._seconds = self._seconds_before = 0
        self._begun = False
        self._latest = -1  # the time of the last picture that others need, in this period
        self._take(configuration)

    def read(self, packet: memoryview, new_extradata: bytes | None = None) -> Picture | None:
        """Return a packet's picture, None where it holds none or one whose time can't be read."""
        if new_extradata is not None:
            self._take(new_extradata)
        return self._take(bytes(packet))

    def _take(self, content: bytes) -> Picture | None:
        position = content.find(_START)
        while 0 <= position < len(content) - len(_START):
            kind = content[position + 3]
            bits = BitReader(content[position + 4 : position + 4 + _HEADER_BYTES])
            try:
                if kind in _LAYERS:
                    self._ticks_a_second = _ticks_a_second(bits)
                elif kind == _GROUP:
                    self._begin(_seconds(bits))
                elif kind == _PICTURE:
                    return self._picture(bits)
            except Unreadable:
                return None
            position = content.find(_START, position + 3)
        return None

    def _begin(self, seconds: int) -> None:
        """Begin a group; one whose time lies before the last one's begins a period of its own."""
        if seconds < self._seconds:
            self._period, self._latest = self._period + 1, -1
        self._seconds = seconds

    def _picture(self, bits: BitReader) -> Picture:
        if not self._ticks_a_second:
            raise Unreadable("no video object layer before it")
        kind = bits.bits(2)
        is_cut, self._begun = not self._begun and kind != _INTRA, True
        later = 0
        while bits.flag():
            later += 1
            if later > _MOST_SECONDS:
                raise Unreadable("no time")
        bits.skip(1)
        ticks = bits.bits((self._ticks_a_second - 1).bit_length() or 1)
        if kind == _B_PICTURE:  # its seconds count from the reference before the last one
            at = (self._seconds_before + later) * self._ticks_a_second + ticks
            return Picture(Role.REFERENCE, (self._period, at), missing=int(is_cut))
        self._seconds_before, self._seconds = self._seconds, self._seconds + later
        missing = self._seconds * self._ticks_a_second + ticks <= self._latest
        self._seconds += missing
        self._latest = self._seconds * self._ticks_a_second + ticks
        return Picture(Role.REFERENCE, (self._period, self._latest), missing=int(missing or is_cut))


def _seconds(bits: BitReader) -> int:
    """Read a group's time code: hours, minutes, a marker, seconds."""
    minutes = 60 * bits.bits(5) + bits.bits(6)
    bits.skip(1)
    return 60 * minutes + bits.bits(6)


def _ticks_a_second(bits: BitReader) -> int:
    """Read a video object layer's header up to vop_time_increment_resolution."""
    bits.skip(9)
    version = 1
    if bits.flag():
        version = bits.bits(4)
        bits.skip(3)
    if bits.bits(4) == _EXTENDED_ASPECT:
        bits.skip(16)
    if bits.flag():
        bits.skip(3)
        if bits.flag():
            bits.skip(_VBV_BITS)
    if bits.bits(2) == _GREY_SHAPE and version != 1:
        bits.skip(4)
    bits.skip(1)
    return bits.bits(16)
