"""What the readers of pictures say of a clip's packets, all of them or without some."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av

from data_prep.media.bitstreams.coded_picture import Picture
from data_prep.media.bitstreams.pictures import DisplayOrder, picture_reader


class Packets(NamedTuple):
    """A clip's packets in order of decoding, and what a reader needs to know of their stream."""

    codec: str
    extradata: bytes
    data: list[bytes]
    pts: list[int]


class Found(NamedTuple):
    """What a reader says of packets."""

    pictures: list[Picture | None]
    missing: int
    holes: int
    torn: int


def packets_of(path: Path) -> Packets:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        data, pts = [bytes(packet) for packet in packets], [packet.pts for packet in packets]
        return Packets(stream.codec_context.name, stream.codec_context.extradata, data, pts)


def read(clip: Packets, data: Sequence[bytes] | None = None) -> Found:
    """Read a clip's packets, or `data` in their stead."""
    reader = picture_reader(clip.codec, clip.extradata)
    assert reader is not None
    pictures = [reader.read(memoryview(each)) for each in (clip.data if data is None else data)]
    order = DisplayOrder()
    for picture in pictures:
        if picture and picture.order:
            order.add(picture.order)
    known = [picture for picture in pictures if picture]
    return Found(pictures, sum(each.missing for each in known), order.holes(), sum(each.torn for each in known))


def read_without(clip: Packets, number: int) -> Found:
    return read(clip, clip.data[:number] + clip.data[number + 1 :])


def assert_sound(clip: Packets) -> list[Picture]:
    """Assert that a sound clip's reader says nothing, and the order is that of presentation; return the pictures."""
    found = read(clip)
    pictures = [picture for picture in found.pictures if picture]
    assert len(pictures) == len(clip.data)
    assert (found.missing, found.holes, found.torn) == (0, 0, 0)
    assert not any(picture.new_parameters for picture in pictures)
    orders = [picture.order for picture in pictures if picture.order]
    assert len(orders) == len(pictures)
    assert sorted(range(len(orders)), key=orders.__getitem__) == sorted(range(len(orders)), key=clip.pts.__getitem__)
    return pictures


def last_shown(pictures: Sequence[Picture]) -> set[tuple[int, int]]:
    """Return the order of the last picture of each period: what is lost there may leave no trace."""
    orders = [picture.order for picture in pictures if picture.order]
    return {max(each for each in orders if each[0] == period) for period in {each[0] for each in orders}}


def bits(text: str) -> bytes:
    """Return the bytes that zeros and ones, parted by spaces, make, filled up with zeros."""
    text = text.replace(" ", "")
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def unit(content: bytes) -> bytes:
    """Return a NAL unit as a packet holds it."""
    return len(content).to_bytes(4, "big") + content
