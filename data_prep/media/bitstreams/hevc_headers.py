"""HEVC's headers as far as they tell what a picture needs: SPS, PPS and slice segment (ITU-T H.265, 7.3.2, 7.3.6).

What is read here has had its emulation prevention bytes removed, and begins with the NAL unit's two header bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from data_prep.media.bitstreams.bit_reader import BitReader, Unreadable

BLA_W_LP, IDR_W_RADL, IDR_N_LP, CRA, LAST_IRAP = 16, 19, 20, 21, 23
_MOST_REFERENCES = 16
_MOST_SETS = 64

Item = TypeVar("Item")


class References(NamedTuple):
    """A short-term reference picture set: differences in order count, nearest first, earlier ones before later ones."""

    deltas: list[int]
    used: list[int]  # whether the picture itself needs it, or only later ones


class LongTerm(NamedTuple):
    """A long-term reference picture of a slice."""

    order_lsb: int
    periods: int | None  # of the low bits, back from the slice's own; None: any picture with those low bits is meant
    used: int


@dataclass(frozen=True, slots=True)
class Sps:
    """A sequence parameter set."""

    number: int
    colour_planes: bool  # each colour is coded as a picture of its own
    order_bits: int  # of slice_pic_order_cnt_lsb
    sets: list[References]
    long_term: list[tuple[int, int]] | None  # low bits of order counts, and whether used; None: no long-term pictures
    address_bits: int  # of slice_segment_address


@dataclass(frozen=True, slots=True)
class Pps:
    """A picture parameter set."""

    number: int
    sps: int
    dependent_slices: bool
    output_flag: bool
    extra_bits: int


SetPairs = Mapping[int, tuple[Sps, Pps]]  # by the PPS's number


class Slice(NamedTuple):
    """The beginning of an independent slice segment's header."""

    order_bits: int
    order_lsb: int = 0
    short_term: References = References([], [])
    long_term: Sequence[LongTerm] = ()


def read_sps(unit: bytes) -> Sps:
    """Read a sequence parameter set (7.3.2.2.1). Raises Unreadable."""
    bits = BitReader(unit[2:])
    bits.skip(4)
    sub_layers = bits.bits(3)
    bits.skip(1)
    _pass_profile(bits, sub_layers)
    number = bits.ue_upto(15)
    chroma = bits.ue_upto(3)
    planes = bits.flag() if chroma == 3 else 0
    width, height = bits.ue_upto(1 << 16), bits.ue_upto(1 << 16)
    if bits.flag():
        for _ in range(4):
            bits.ue()
    bits.ue(), bits.ue()  # bit depths
    order_bits = bits.ue_upto(12) + 4
    for _ in range(sub_layers + 1 if bits.flag() else 1):
        bits.ue(), bits.ue(), bits.ue()
    block = bits.ue_upto(3) + 3
    block += bits.ue_upto(3)
    for _ in range(4):
        bits.ue()
    if bits.flag() and bits.flag():
        _pass_scaling_lists(bits)
    bits.skip(2)
    if bits.flag():
        bits.skip(8)
        bits.ue(), bits.ue()
        bits.skip(1)
    sets: list[References] = []
    for index in range(bits.ue_upto(_MOST_SETS)):
        sets.append(_read_references(bits, index, sets, in_slice=False))
    long_term = None
    if bits.flag():
        long_term = [(bits.bits(order_bits), bits.flag()) for _ in range(bits.ue_upto(32))]
    blocks = -(-width >> block) * -(-height >> block)
    return Sps(number, bool(planes), order_bits, sets, long_term, (blocks - 1).bit_length())


def _pass_profile(bits: BitReader, sub_layers: int) -> None:
    """Pass over profile_tier_level (7.3.3)."""
    bits.skip(96)
    present = [(bits.flag(), bits.flag()) for _ in range(sub_layers)]
    if sub_layers:
        bits.skip(2 * (8 - sub_layers))
    for profile, level in present:
        bits.skip(88 * profile + 8 * level)


def _pass_scaling_lists(bits: BitReader) -> None:
    """Pass over scaling_list_data (7.3.4)."""
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.flag():
                bits.ue()
                continue
            if size > 1:
                bits.se()
            for _ in range(min(64, 16 << 2 * size)):
                bits.se()


def _read_references(bits: BitReader, index: int, sets: list[References], *, in_slice: bool) -> References:
    """Read st_ref_pic_set (7.3.7, 7.4.8), the set `index` after `sets`."""
    if index and bits.flag():
        base = sets[index - 1 - (bits.ue_upto(index - 1) if in_slice else 0)]
        sign = bits.flag()
        shift = (bits.ue() + 1) * (-1 if sign else 1)
        found = {}
        for delta in [*base.deltas, 0]:
            used = bits.flag()
            if (used or bits.flag()) and delta + shift:
                found[delta + shift] = used
        deltas = sorted(found, key=lambda delta: (delta > 0, abs(delta)))
        return References(deltas, [found[delta] for delta in deltas])
    counts = bits.ue_upto(_MOST_REFERENCES), bits.ue_upto(_MOST_REFERENCES)
    deltas, useds = [], []
    for count, direction in zip(counts, (-1, 1), strict=True):
        delta = 0
        for _ in range(count):
            delta += direction * (bits.ue_upto(1 << 15) + 1)
            deltas.append(delta)
            useds.append(bits.flag())
    return References(deltas, useds)


def read_pps(unit: bytes) -> Pps:
    """Read a picture parameter set (7.3.2.3.1). Raises Unreadable."""
    bits = BitReader(unit[2:])
    number, sps = bits.ue_upto(63), bits.ue_upto(15)
    return Pps(number, sps, bool(bits.flag()), bool(bits.flag()), bits.bits(3))


def read_address(unit: bytes, kind: int, sets: SetPairs) -> tuple[int, bool]:
    """Return where in its picture a slice segment begins, in blocks, and whether it stands on its own (7.3.6.1).

    One that doesn't leans on the header of the one before. Raises Unreadable.
    """
    address, is_dependent, _, _ = _read_address(BitReader(unit[2:]), kind, sets)
    return address, not is_dependent


def _read_address(bits: BitReader, kind: int, sets: SetPairs) -> tuple[int, int, Sps, Pps]:
    is_first = bits.flag()
    if BLA_W_LP <= kind <= LAST_IRAP:
        bits.flag()
    number = bits.ue()
    if number not in sets:
        raise Unreadable(f"no parameter set {number}")
    sps, pps = sets[number]
    is_dependent = bits.flag() if pps.dependent_slices and not is_first else 0
    return 0 if is_first else bits.bits(sps.address_bits), is_dependent, sps, pps


def read_slice(unit: bytes, kind: int, sets: SetPairs) -> Slice:
    """Read an independent slice segment's header up to its reference pictures (7.3.6.1). Raises Unreadable."""
    bits = BitReader(unit[2:])
    _, is_dependent, sps, pps = _read_address(bits, kind, sets)
    if is_dependent:
        raise Unreadable("a dependent slice segment")
    bits.skip(pps.extra_bits)
    bits.ue_upto(2)
    bits.skip(pps.output_flag + 2 * sps.colour_planes)
    if kind in (IDR_W_RADL, IDR_N_LP):
        return Slice(sps.order_bits)
    order_lsb = bits.bits(sps.order_bits)
    if not bits.flag():
        short_term = _read_references(bits, len(sps.sets), sps.sets, in_slice=True)
    else:
        short_term = _chosen(bits, sps.sets)
    long_term = () if sps.long_term is None else _read_long_term(bits, sps.long_term, sps.order_bits)
    return Slice(sps.order_bits, order_lsb, short_term, long_term)


def _chosen(bits: BitReader, choice: Sequence[Item]) -> Item:
    """Read which of several is meant, in as many bits as it takes."""
    index = bits.bits((len(choice) - 1).bit_length()) if choice else 0
    if index >= len(choice):
        raise Unreadable(f"{index} where there are {len(choice)}")
    return choice[index]


def _read_long_term(bits: BitReader, listed: list[tuple[int, int]], order_bits: int) -> list[LongTerm]:
    from_sps = bits.ue_upto(len(listed)) if listed else 0
    found: list[LongTerm] = []
    back = 0
    for number in range(from_sps + bits.ue_upto(_MOST_REFERENCES)):
        if number < from_sps:
            order_lsb, used = _chosen(bits, listed)
        else:
            order_lsb, used = bits.bits(order_bits), bits.flag()
        if number in (0, from_sps):
            back = 0
        is_whole = bits.flag()
        back += bits.ue() if is_whole else 0
        found.append(LongTerm(order_lsb, back if is_whole else None, used))
    return found
