"""What other pictures an H.264 packet needs and serves, read from its NAL units' headers (ITU-T H.264, 7.4.1)."""

from collections.abc import Iterator
from enum import Enum

_AVC_CONFIGURATION = 1  # first byte of an mp4's decoder configuration record (ISO/IEC 14496-15, 5.3.3.1)
_SLICE, _PARTITION_C, _IDR_SLICE = 1, 4, 5


class Role(Enum):
    """A packet's picture among the others."""

    FRESH_START = "an IDR picture: nothing after it needs anything before it"
    REFERENCE = "others may need it"
    LEAF = "no other needs it"


def nal_length_bytes(codec_name: str, extradata: bytes | None) -> int | None:
    """Return in how many bytes a packet states each NAL unit's length, None for what isn't H.264 as mp4 holds it."""
    if codec_name != "h264" or not extradata or len(extradata) < 7 or extradata[0] != _AVC_CONFIGURATION:
        return None
    return (extradata[4] & 0b11) + 1


def role_of(packet: memoryview, length_bytes: int) -> Role | None:
    """Return the role of a packet's picture, None where it holds no picture or isn't made of whole NAL units."""
    role = None
    for header in _nal_headers(packet, length_bytes):
        if header is None:
            return None
        kind, is_reference = header & 0b11111, bool(header & 0b1100000)
        if kind == _IDR_SLICE:
            return Role.FRESH_START
        if _SLICE <= kind <= _PARTITION_C and role is not Role.REFERENCE:
            role = Role.REFERENCE if is_reference else Role.LEAF
    return role


def _nal_headers(packet: memoryview, length_bytes: int) -> Iterator[int | None]:
    """Yield the first byte of each NAL unit, None where one is empty or longer than the packet."""
    position = 0
    while position < len(packet):
        first = position + length_bytes
        position = first + int.from_bytes(packet[position:first], "big")
        yield packet[first] if first < position <= len(packet) else None
