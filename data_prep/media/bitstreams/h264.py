"""What other pictures an H.264 packet needs and serves, and which never came, read from headers (ITU-T H.264).

A reference picture that is lost leaves a gap in frame_num (7.4.3); one that no other needs leaves a hole in the order
of pictures only. Neither is left by what is lost at the end of a period, with nothing between it and the next IDR
picture; by an IDR picture right after another; by exactly as many reference pictures as frame_num can count; nor by
what is lost before an intra picture that begins the stream. Streams that allow gaps in frame_num, or whose order is of
type 1, tell only one of the two.
"""

from data_prep.media.bitstreams.bit_reader import BitReader, Unreadable
from data_prep.media.bitstreams.coded_picture import Picture, Role, SliceLayout
from data_prep.media.bitstreams.h264_headers import IDR_SLICE, Pps, Sps, read_pps, read_slice, read_sps
from data_prep.media.bitstreams.h264_numbers import H264Numbers
from data_prep.media.bitstreams.nal_units import Configuration, avc_configuration, bounds, unescaped
from data_prep.media.bitstreams.parameter_sets import ParameterSets

_SLICE, _PARTITION_A, _PARTITION_C = 1, 2, 4
_SPS, _PPS, _SPS_EXTENSION, _SUBSET_SPS = 7, 8, 13, 15
_PARAMETER_SETS = {_SPS, _PPS, _SPS_EXTENSION, _SUBSET_SPS}
_ORDER_BYTES = 40  # a slice's header up to its picture's order is shorter
_HEADER_BYTES = 1024  # hardly a slice's header is longer


class H264Reader:
    """Reads packets in order of decoding; a PictureReader (pictures.py)."""

    def __init__(self, configuration: Configuration) -> None:
        self._parameters = _ParameterSets()
        self._numbers = H264Numbers()
        self._layout = SliceLayout()
        self._configure(configuration)
        self._parameters.are_new = False

    def read(self, packet: memoryview, new_extradata: bytes | None = None) -> Picture | None:
        """Return a packet's picture, None where it holds none or isn't made of whole units."""
        if new_extradata is not None:
            configuration = avc_configuration(new_extradata)
            if configuration is None:
                return None
            self._configure(configuration)
        units, is_whole = bounds(packet, self._length_bytes)
        role, starts, firsts = None, [], []
        for first, end in units:
            header = packet[first]
            kind = header & 0b11111
            if kind in _PARAMETER_SETS:
                self._parameters.take(kind, bytes(packet[first:end]))
            elif _SLICE <= kind <= IDR_SLICE:
                role = _role(role, kind, header)
                if kind <= _PARTITION_A or kind == IDR_SLICE:
                    starts.append(_first_macroblock(packet, first + 1))
                    if starts[-1] == 0 or len(starts) == 1:
                        firsts.append(bytes(packet[first : min(end, first + _HEADER_BYTES)]))
        if role is None or not is_whole:
            return None
        return self._picture(role, firsts, starts)

    def _configure(self, configuration: Configuration) -> None:
        self._length_bytes = configuration.length_bytes
        for unit in configuration.units:
            self._parameters.take(unit[0] & 0b11111, unit)

    def _picture(self, role: Role, firsts: list[bytes], starts: list[int]) -> Picture:
        """Return the picture whose slices begin at the macroblocks `starts`, and its fields with the units `firsts`."""
        sets, are_new = self._parameters.pairs, self._parameters.are_new
        if are_new:
            self._parameters.are_new, self._layout = False, SliceLayout()
        missing, order, torn = 0, None, False
        try:
            for number, unit in enumerate(firsts):
                read = read_slice(unescaped(unit[:_ORDER_BYTES]), sets)
                if number and not read.field:
                    break  # the same frame once more, coded redundantly
                lost, shown = self._numbers.take(read, unit, sets)
                missing += lost
                order = shown if order is None or shown is None else min(order, shown)
                torn = read.sps.slices_in_order and starts[0] != 0
        except Unreadable:
            self._numbers.lose_track()
            order = None
        else:
            torn = torn or self._layout.is_torn(starts)
        return Picture(role, order, missing, torn, are_new)


class _ParameterSets(ParameterSets[Sps, Pps]):
    def _read(self, kind: int, unit: bytes) -> int:
        if kind == _PPS:
            pps = read_pps(unit)
            self._pps[pps.number] = pps
            return pps.number
        if kind == _SPS_EXTENSION:
            return BitReader(unit[1:]).ue()
        sps = read_sps(unit)
        if kind == _SPS:
            self._sps[sps.number] = sps
        return sps.number


def _role(role: Role | None, kind: int, header: int) -> Role:
    """Return the role of a picture, by what its slices before this one told and this one's header."""
    if kind == IDR_SLICE or role is Role.FRESH_START:
        return Role.FRESH_START
    return Role.REFERENCE if header & 0b1100000 else role or Role.LEAF


def _first_macroblock(packet: memoryview, position: int) -> int:
    """Return a slice's first_mb_in_slice, from the bytes after its header's first; -1 for what is no number."""
    code = packet[position : position + 4]
    if code and code[0] & 0x80:
        return 0
    try:
        return BitReader(bytes(code)).ue()
    except Unreadable:
        return -1
