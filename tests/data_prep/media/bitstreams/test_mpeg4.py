from pathlib import Path

import pytest

from tests.made_clips import write_lively_mp4
from tests.read_pictures import assert_sound, packets_of, read, read_without

OPTIONS = {
    "plain": {},
    "B pictures": {"bf": "2"},
    "every third a keyframe": {"g": "3"},
    "slow": {"g": "12", "bf": "1"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_order_is_that_of_presentation_and_a_lost_picture_leaves_a_hole(tmp_path: Path, name: str) -> None:
    clip = packets_of(write_lively_mp4(tmp_path / "clip.mp4", OPTIONS[name], codec="mpeg4", frames=72))
    assert_sound(clip)
    for lost in range(70):
        if (lost == 0 and name != "every third a keyframe") or clip.pts[lost] not in (min(clip.pts), max(clip.pts)):
            without = read_without(clip, lost)
            assert all(picture and picture.order for picture in without.pictures)
            assert without.missing + without.holes >= 1, lost


@pytest.mark.parametrize("packet", [b"", b"\0\0\1", b"\0\0\1\xb6", b"\0\0\1\xb6\xff\xff\xff", b"\xff" * 40])
def test_what_holds_no_picture(tmp_path: Path, packet: bytes) -> None:
    clip = packets_of(write_lively_mp4(tmp_path / "clip.mp4", {}, codec="mpeg4", frames=2))
    for extradata in (clip.extradata, b""):
        assert read(clip._replace(extradata=extradata), [packet]).pictures == [None]
