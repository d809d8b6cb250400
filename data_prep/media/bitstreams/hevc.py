"""What an HEVC packet's picture needs and never came, read from headers (ITU-T H.265).

Every picture states all pictures that it and later ones need (8.3.2), so that a lost one is noticed by the next that
needs it; one that no other needs leaves a hole in the order of pictures only. What is lost at the end of a period, with
nothing between it and the next IDR picture, leaves neither. Pictures before a CRA picture in the order of presentation
but after it in that of decoding (RASL) need ones from before it: where the stream begins with the CRA picture, or was
cut there, those are missing, and decoders leave such pictures out.
"""

from data_prep.media.bitstreams.bit_reader import BitReader, Unreadable
from data_prep.media.bitstreams.coded_picture import PeriodNumbers, Picture, Role, SliceLayout
from data_prep.media.bitstreams.hevc_headers import (
    BLA_W_LP,
    CRA,
    IDR_N_LP,
    IDR_W_RADL,
    LongTerm,
    Pps,
    Slice,
    Sps,
    read_address,
    read_pps,
    read_slice,
    read_sps,
)
from data_prep.media.bitstreams.nal_units import Configuration, bounds, hevc_configuration, unescaped
from data_prep.media.bitstreams.parameter_sets import ParameterSets

_FIRST_LEADING, _LAST_LEADING = 6, 9
_VPS, _SPS, _PPS, _END_OF_SEQUENCE, _END_OF_STREAM = 32, 33, 34, 36, 37
_HEADER_BYTES = 256  # hardly a slice's header is longer, up to its reference pictures


class HevcReader:
    """Reads packets in order of decoding; a PictureReader (pictures.py)."""

    def __init__(self, configuration: Configuration) -> None:
        self._parameters = _ParameterSets()
        self._references = _References()
        self._layout = SliceLayout()
        self._configure(configuration)
        self._parameters.are_new = False

    def read(self, packet: memoryview, new_extradata: bytes | None = None) -> Picture | None:
        """Return a packet's picture, None where it holds none or isn't made of whole units."""
        if new_extradata is not None:
            configuration = hevc_configuration(new_extradata)
            if configuration is None:
                return None
            self._configure(configuration)
        units, is_whole = bounds(packet, self._length_bytes)
        slices, ends = [], False
        for first, end in units:
            kind = packet[first] >> 1
            if end - first < 2 or packet[first] & 1 or packet[first + 1] >> 3:
                continue  # no unit, or one of another layer
            if kind <= _LAST_LEADING or BLA_W_LP <= kind <= CRA:
                slices.append(unescaped(bytes(packet[first : min(end, first + _HEADER_BYTES)])))
            elif _VPS <= kind <= _PPS:
                self._parameters.take(kind, bytes(packet[first:end]))
            ends = ends or kind in (_END_OF_SEQUENCE, _END_OF_STREAM)
        picture = self._picture(slices) if slices and is_whole else None
        if ends:
            self._references.end()
        return picture

    def _configure(self, configuration: Configuration) -> None:
        self._length_bytes = configuration.length_bytes
        for unit in configuration.units:
            self._parameters.take(unit[0] >> 1, unit)

    def _picture(self, slices: list[bytes]) -> Picture:
        """Return the picture that the units of slice segments make."""
        sets, are_new = self._parameters.pairs, self._parameters.are_new
        if are_new:
            self._parameters.are_new, self._layout = False, SliceLayout()
        kind = slices[0][0] >> 1
        role = Role.FRESH_START if kind in (IDR_W_RADL, IDR_N_LP) else Role.REFERENCE
        try:
            starts = [read_address(unit, kind, sets) for unit in slices]
            independent = next((unit for unit, (_, alone) in zip(slices, starts, strict=True) if alone), slices[0])
            read = read_slice(independent, kind, sets)
        except Unreadable:
            return Picture(role, None, 0, False, are_new)
        addresses = [address for address, _ in starts]
        torn = addresses[0] != 0 or self._layout.is_torn(addresses)
        missing, order = self._references.take(read, kind, (slices[0][1] & 0b111) - 1)
        return Picture(role, order, missing, torn, are_new)


class _ParameterSets(ParameterSets[Sps, Pps]):
    def _read(self, kind: int, unit: bytes) -> int:
        if kind == _VPS:
            return BitReader(unit[2:]).bits(4)
        if kind == _SPS:
            sps = read_sps(unit)
            self._sps[sps.number] = sps
            return sps.number
        pps = read_pps(unit)
        self._pps[pps.number] = pps
        return pps.number


class _References:
    """The pictures that a decoder holds, by their order counts (8.3.1, 8.3.2)."""

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._period = 0
        self._numbers = PeriodNumbers()
        self._ended = True  # the next picture begins a period, whatever it is
        self._order_msb = self._order_lsb = 0

    def end(self) -> None:
        """The sequence ends here."""
        self._ended = True

    def take(self, read: Slice, kind: int, temporal_id: int) -> tuple[int, tuple[int, int]]:
        """Take in the next picture; return how many that it needs are missing, and its (period, number)."""
        msb = 0
        if self._ended or BLA_W_LP <= kind <= IDR_N_LP:
            self._period += 1
            self._numbers.begin()
            self._held, self._ended = set(), False
        else:
            msb = self._msb(read)
        order = msb + read.order_lsb
        is_leading = _FIRST_LEADING <= kind <= _LAST_LEADING
        is_sub_layer_leaf = kind < BLA_W_LP and kind % 2 == 0
        if temporal_id == 0 and not is_leading and not is_sub_layer_leaf:
            self._order_msb, self._order_lsb = msb, read.order_lsb
        missing = self._keep(read, order)
        if self._numbers.begin_anew(order):
            missing = max(missing, 1)
            self._period += 1
        return missing, (self._period, order)

    def _msb(self, read: Slice) -> int:
        size, lsb = 1 << read.order_bits, read.order_lsb
        if lsb < self._order_lsb and self._order_lsb - lsb >= size // 2:
            return self._order_msb + size
        if lsb > self._order_lsb and lsb - self._order_lsb > size // 2:
            return self._order_msb - size
        return self._order_msb

    def _keep(self, read: Slice, order: int) -> int:
        """Let go of what the picture and later ones don't need; return how many of those are missing."""
        wanted = [(order + delta, used) for delta, used in zip(*read.short_term, strict=True)]
        wanted += [(self._long_term(each, order, read.order_bits), each.used) for each in read.long_term]
        missing = {each for each, used in wanted if used} - self._held  # held from now on, to be told of once
        self._held &= {each for each, _ in wanted}
        self._held |= missing | {order}
        return len(missing)

    def _long_term(self, read: LongTerm, order: int, order_bits: int) -> int:
        size = 1 << order_bits
        if read.periods is not None:
            return order - order % size - (read.periods << order_bits) + read.order_lsb
        return next((each for each in self._held if each % size == read.order_lsb), read.order_lsb)
