from pathlib import Path

import av
import pytest

from data_prep.pictures import DisplayOrder, picture_reader
from tests.made_clips import write_lively_mp4

OPTIONS = {
    "plain": {},
    "B pictures": {"bf": "2"},
    "every third a keyframe": {"g": "3"},
    "slow": {"g": "12", "bf": "1"},
}


def packets_of(path: Path) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return a clip's configuration, and its packets with their times in order of decoding."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [(packet.pts, bytes(packet)) for packet in container.demux(stream) if packet.size]
        return stream.codec_context.extradata, packets


def lost_pictures(extradata: bytes, packets: list[tuple[int, bytes]]) -> int:
    """Return how many pictures are told to be missing."""
    missing = 0
    reader, order = picture_reader("mpeg4", extradata), DisplayOrder()
    assert reader is not None
    for _, packet in packets:
        picture = reader.read(memoryview(packet))
        assert picture is not None
        assert picture.order is not None
        order.add(picture.order)
        missing += picture.missing
    return missing + order.holes()


@pytest.mark.parametrize("name", OPTIONS)
def test_order_is_that_of_presentation_and_a_lost_picture_leaves_a_hole(tmp_path: Path, name: str) -> None:
    path = write_lively_mp4(tmp_path / "clip.mp4", OPTIONS[name], codec="mpeg4", frames=72)
    extradata, packets = packets_of(path)
    reader = picture_reader("mpeg4", extradata)
    assert reader is not None
    found = [(reader.read(memoryview(packet)).order, pts) for pts, packet in packets]  # type: ignore[union-attr]
    assert [pts for _, pts in sorted(found)] == sorted(pts for pts, _ in packets)
    assert lost_pictures(extradata, packets) == 0
    for lost in range(70):
        if (lost == 0 and name != "every third a keyframe") or packets[lost][0] not in (min(found)[1], max(found)[1]):
            assert lost_pictures(extradata, packets[:lost] + packets[lost + 1 :]) >= 1, lost


@pytest.mark.parametrize("packet", [b"", b"\0\0\1", b"\0\0\1\xb6", b"\0\0\1\xb6\xff\xff\xff", b"\xff" * 40])
def test_what_holds_no_picture(tmp_path: Path, packet: bytes) -> None:
    extradata, _ = packets_of(write_lively_mp4(tmp_path / "clip.mp4", {}, codec="mpeg4", frames=2))
    for configuration in (extradata, b""):
        reader = picture_reader("mpeg4", configuration)
        assert reader is not None
        assert reader.read(memoryview(packet)) is None
