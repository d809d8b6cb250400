"""H.264's headers as far as they tell what a picture needs: SPS, PPS and slice (ITU-T H.264, 7.3.2, 7.3.3).

What is read here has had its emulation prevention bytes removed, and begins with the NAL unit's header byte.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.media.bitstreams.bit_reader import BitReader, Unreadable

IDR_SLICE = 5  # type of NAL unit
_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
_BASELINE, _EXTENDED = 66, 88
_P, _B, _I, _SP, _SI = range(5)
_MMCO_ALL_UNUSED = 5


@dataclass(frozen=True, slots=True)
class Sps:
    """A sequence parameter set."""

    number: int
    colour_planes: bool  # each colour is coded as a picture of its own
    has_chroma: bool  # ChromaArrayType isn't 0
    frame_num_bits: int
    order_type: int  # pic_order_cnt_type
    order_bits: int  # of pic_order_cnt_lsb, for type 0
    order_deltas: bool  # slices hold delta_pic_order_cnt, for type 1
    gaps_allowed: bool
    frames_only: bool
    slices_in_order: bool  # the profile allows no arbitrary order of slices


@dataclass(frozen=True, slots=True)
class Pps:
    """A picture parameter set."""

    number: int
    sps: int
    bottom_order: bool  # frames state their second field's order
    references: tuple[int, int]  # of list 0 and 1, unless a slice says otherwise
    weighted_p: bool
    weighted_b: int
    redundant: bool


class Slice(NamedTuple):
    """The beginning of a slice's header."""

    sps: Sps
    pps: Pps
    kind: int
    frame_num: int
    field: int  # 0 for a frame, 1 for a top field, 2 for a bottom field
    order_lsb: int  # for type 0
    bottom_delta: int  # for type 0

    @property
    def is_intra(self) -> bool:
        """Whether the slice leans on no other picture."""
        return self.kind in (_I, _SI)


SetPairs = Mapping[int, tuple[Sps, Pps]]  # by the PPS's number


def read_sps(unit: bytes) -> Sps:
    """Read a sequence parameter set, also a subset's (7.3.2.1.1). Raises Unreadable."""
    bits = BitReader(unit[1:])
    profile, constraints = bits.bits(8), bits.bits(8)
    bits.skip(8)  # level
    number = bits.ue_upto(31)
    chroma, planes = 1, 0
    if profile in _HIGH_PROFILES:
        chroma = bits.ue_upto(3)
        planes = bits.flag() if chroma == 3 else 0
        bits.ue(), bits.ue()  # bit depths
        bits.flag()
        if bits.flag():
            _pass_scaling_matrices(bits, 12 if chroma == 3 else 8)
    frame_num_bits = bits.ue_upto(12) + 4
    order_type = bits.ue_upto(2)
    order_bits = bits.ue_upto(12) + 4 if order_type == 0 else 0
    order_deltas = order_type == 1 and _order_cycle(bits)
    bits.ue()  # most reference frames
    gaps = bits.flag()
    bits.ue(), bits.ue()  # width and height
    frames_only = bits.flag()
    disordered = profile == _EXTENDED or (profile == _BASELINE and not constraints & 0b01000000)
    has_chroma = chroma != 0 and not planes
    return Sps(
        number, bool(planes), has_chroma, frame_num_bits, order_type, order_bits, order_deltas,
        bool(gaps), bool(frames_only), not disordered,
    )  # fmt: skip


def _pass_scaling_matrices(bits: BitReader, count: int) -> None:
    for matrix in range(count):
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if matrix < 6 else 64):
            if following:
                following = (last + bits.se()) % 256
            last = following or last


def _order_cycle(bits: BitReader) -> bool:
    """Read what type 1 says of the order of pictures; return whether slices state differences from it."""
    always_zero = bits.flag()
    bits.se(), bits.se()
    for _ in range(bits.ue_upto(255)):
        bits.se()
    return not always_zero


def read_pps(unit: bytes) -> Pps:
    """Read a picture parameter set (7.3.2.2). Raises Unreadable, also for slice groups, which hardly anyone uses."""
    bits = BitReader(unit[1:])
    number, sps = bits.ue_upto(255), bits.ue_upto(31)
    bits.flag()  # entropy coding
    bottom_order = bits.flag()
    if bits.ue():
        raise Unreadable("slice groups")
    references = bits.ue_upto(31) + 1, bits.ue_upto(31) + 1
    weighted_p, weighted_b = bits.flag(), bits.bits(2)
    bits.se(), bits.se(), bits.se()
    bits.skip(2)
    return Pps(number, sps, bool(bottom_order), references, bool(weighted_p), weighted_b, bool(bits.flag()))


def read_slice(unit: bytes, sets: SetPairs) -> Slice:
    """Read a slice's header up to its picture's order (7.3.3). Raises Unreadable, also where its sets are unknown."""
    return _read_slice(BitReader(unit[1:]), unit[0], sets)


def _read_slice(bits: BitReader, header: int, sets: SetPairs) -> Slice:
    bits.ue()
    kind = bits.ue_upto(9) % 5
    number = bits.ue()
    if number not in sets:
        raise Unreadable(f"no parameter set {number}")
    sps, pps = sets[number]
    if sps.colour_planes:
        bits.skip(2)
    frame_num = bits.bits(sps.frame_num_bits)
    field = 0
    if not sps.frames_only and bits.flag():
        field = 1 + bits.flag()
    if header & 0b11111 == IDR_SLICE:
        bits.ue()
    order_lsb = bottom_delta = 0
    if sps.order_type == 0:
        order_lsb = bits.bits(sps.order_bits)
        if pps.bottom_order and not field:
            bottom_delta = bits.se()
    return Slice(sps, pps, kind, frame_num, field, order_lsb, bottom_delta)


def empties_references(unit: bytes, sets: SetPairs) -> bool:
    """Return whether a reference picture, no IDR, makes all others unused, so that numbers begin anew (7.4.3, 7.4.3.3).

    `unit` is its slice's. Raises Unreadable.
    """
    bits = BitReader(unit[1:])
    read = _read_slice(bits, unit[0], sets)
    sps, pps = read.sps, read.pps
    if sps.order_deltas:
        bits.se()
        if pps.bottom_order and not read.field:
            bits.se()
    if pps.redundant:
        bits.ue()
    _pass_reference_lists(bits, read)
    if not bits.flag():
        return False
    while operation := bits.ue_upto(6):
        if operation == _MMCO_ALL_UNUSED:
            return True
        bits.ue()
        if operation == 3:
            bits.ue()
    return False


def _pass_reference_lists(bits: BitReader, read: Slice) -> None:
    """Pass over the lists' lengths, orders and weights (7.3.3.1, 7.3.3.2)."""
    sps, pps = read.sps, read.pps
    if read.kind == _B:
        bits.flag()
    counts = list(pps.references[: {_P: 1, _SP: 1, _B: 2}.get(read.kind, 0)])
    if counts and bits.flag():
        counts = [bits.ue_upto(31) + 1 for _ in counts]
    for _ in counts:
        if bits.flag():
            while bits.ue_upto(3) != 3:
                bits.ue()
    if (read.kind in (_P, _SP) and pps.weighted_p) or (read.kind == _B and pps.weighted_b == 1):
        bits.ue()
        if sps.has_chroma:
            bits.ue()
        for count in counts:
            for _ in range(count):
                for values in (2, 4) if sps.has_chroma else (2,):
                    for _ in range(values if bits.flag() else 0):
                        bits.se()
