"""NAL units as mp4 holds them: in packets, each behind its length, and in decoder configurations (ISO/IEC 14496-15)."""

from typing import NamedTuple

_VERSION = 1  # first byte of a decoder configuration record; Annex B begins with a zero


class Configuration(NamedTuple):
    """A decoder configuration: how long the length before each unit is, and the parameter sets."""

    length_bytes: int
    units: list[bytes]


def bounds(packet: memoryview, length_bytes: int) -> tuple[list[tuple[int, int]], bool]:
    """Return where each of a packet's units begins and ends, and whether the packet is made of whole units."""
    found: list[tuple[int, int]] = []
    position, size = 0, len(packet)
    while position < size:
        first = position + length_bytes
        position = first + int.from_bytes(packet[position:first], "big")
        if not first < position <= size:
            return found, False
        found.append((first, position))
    return found, True


def unescaped(unit: bytes) -> bytes:
    """Return a unit without its emulation prevention bytes (ITU-T H.264 and H.265, 7.3.1.1 and 7.4.2)."""
    return unit.replace(b"\0\0\3", b"\0\0") if b"\0\0\3" in unit else unit


def avc_configuration(extradata: bytes | None) -> Configuration | None:
    """Read an AVCDecoderConfigurationRecord (5.3.3.1), None for what is none; a torn one up to the tear."""
    if not extradata or len(extradata) < 7 or extradata[0] != _VERSION:
        return None
    units, position = _listed(extradata, 6, extradata[5] & 0b11111)
    if position < len(extradata):
        more, position = _listed(extradata, position + 1, extradata[position])
        units += more
    if position + 3 < len(extradata):  # sequence parameter set extensions, of the high profiles only
        units += _listed(extradata, position + 4, extradata[position + 3])[0]
    return Configuration((extradata[4] & 0b11) + 1, units)


def hevc_configuration(extradata: bytes | None) -> Configuration | None:
    """Read an HEVCDecoderConfigurationRecord (8.3.3.1), None for what is none; a torn one up to the tear."""
    if not extradata or len(extradata) < 23 or extradata[0] != _VERSION:
        return None
    units: list[bytes] = []
    position = 23
    for _ in range(extradata[22]):
        more, position = _listed(extradata, position + 3, int.from_bytes(extradata[position + 1 : position + 3], "big"))
        units += more
    return Configuration((extradata[21] & 0b11) + 1, units)


def _listed(record: bytes, position: int, count: int) -> tuple[list[bytes], int]:
    """Return `count` units from `position` on, each behind its length of two bytes, and where they end."""
    units: list[bytes] = []
    for _ in range(count):
        first = position + 2
        end = first + int.from_bytes(record[position:first], "big")
        if not first < end <= len(record):
            return units, len(record)
        units.append(record[first:end])
        position = end
    return units, position
