"""HEVC's headers: what a picture needs, what is missing of it, and the order of presentation."""

from pathlib import Path

import pytest

from data_prep.media.bitstreams.coded_picture import Role
from data_prep.media.bitstreams.hevc_headers import References, read_sps
from tests.made_clips import write_lively_mp4
from tests.read_pictures import Packets, assert_sound, bits, last_shown, packets_of, read, read_without, unit

X265 = {
    "open groups": "keyint=12:min-keyint=12:bframes=4",
    "closed groups": "keyint=12:min-keyint=12:open-gop=0:bframes=3",
    "no B-frames": "keyint=24:bframes=0:ref=4",
    "pyramid": "keyint=24:bframes=7:b-adapt=0:b-pyramid=1:ref=4:rc-lookahead=12",
}


def lively(path: Path, params: str, frames: int = 30) -> Packets:
    options = {"x265-params": f"log-level=none:pools=1:{params}", "crf": "32", "preset": "ultrafast"}
    return packets_of(write_lively_mp4(path, options, frames=frames, codec="libx265"))


@pytest.mark.parametrize("name", X265)
def test_lost_picture_is_noticed_and_a_sound_clip_is_not(tmp_path: Path, name: str) -> None:
    """Only what ends a period, the last picture shown before an IDR picture, leaves no trace."""
    clip = lively(tmp_path / "clip.mp4", X265[name])
    pictures = assert_sound(clip)
    last = last_shown(pictures)
    for number, picture in enumerate(pictures[:-1]):
        without = read_without(clip, number)
        if picture.order not in last:
            assert without.missing or without.holes == 1
        if picture.role is Role.FRESH_START:
            assert without.missing


def test_pictures_that_lean_over_the_start_lack_their_references(tmp_path: Path) -> None:
    """A clip cut at a CRA picture: those shown before it, but decoded after it, need what was cut off."""
    clip = lively(tmp_path / "clip.mp4", X265["open groups"])
    start = [each[4] >> 1 for each in clip.data].index(21)
    found = read(clip, clip.data[start:])
    pictures = [each for each in found.pictures if each and each.order]
    leading = [each.order < pictures[0].order for each in pictures if each.order and pictures[0].order]
    assert found.missing
    assert not any(each.missing for each, is_leading in zip(pictures, leading, strict=True) if not is_leading)


# A stream of 64x64 pictures, written by hand: order counts of 4 bits, two sets of references, long-term pictures.
PROFILE = "0" * 96
SETS = (
    "011 "  # two
    "011 010 1 1 010 1 010 1 "  # -1 and -3, and 2
    "1 1 1 1 01 00 1"  # the first by -1: -2 used, -4 for later, not 1, and -1 used
)
SPS = (
    f"0100001000000001 0000 000 1 {PROFILE} 1 010 0000001000001 0000001000001 0 1 1 1 0 1 1 1 1 1 1 1 1 1 0 0 0 0 "
    f"{SETS} 1 010 0101 1 0 0 1"
)
PPS = "0100010000000001 1 1 0 0 000 0 0"


def configuration() -> bytes:
    record = bytes([1]) + bytes(20) + b"\xff\x02"
    for kind, text in ((33, SPS), (34, PPS)):
        content = bits(text)
        record += bytes([kind]) + (1).to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    return record


def picture(kind: int, lsb: int = 0, references: str = "") -> bytes:
    header = f"0{kind:06b}000000001"
    if kind in (19, 20):
        return unit(bits(f"{header} 1 0 1 011 1") + b"\xff")
    return unit(bits(f"{header} 1 {'0' if kind > 15 else ''} 1 011 {lsb:04b} {references} 1") + b"\xff")


def by_hand(*packets: bytes) -> Packets:
    return Packets("hevc", configuration(), list(packets), [])


def test_sets_of_references_are_read() -> None:
    sps = read_sps(bits(SPS))
    assert sps.sets == [References([-1, -3, 2], [1, 1, 1]), References([-1, -2, -4], [1, 1, 0])]
    assert (sps.order_bits, sps.long_term) == (4, [(5, 1)])


ONE_BEFORE = "0 0 010 1 1 1"  # the slice's own set: -1, used
TWO_BEFORE = "0 0 011 1 1 1 1 1"
THREE_BEFORE = "0 0 00100 1 1 1 1 1 1 1"
NO_LONG_TERM = "1 1"


def test_missing_references_are_told_of_once() -> None:
    first_set, second_set = "1 0", "1 1"
    packets = [
        picture(19),
        picture(1, 1, f"{ONE_BEFORE} {NO_LONG_TERM}"),
        picture(1, 3, f"{second_set} {NO_LONG_TERM}"),  # needs 2 and 1, keeps -1
        picture(1, 4, f"{second_set} {NO_LONG_TERM}"),  # needs 3 and 2, keeps 0
        picture(1, 5, f"{first_set} {NO_LONG_TERM}"),  # needs 4, 2 and 7
    ]
    assert [each.missing for each in read(by_hand(*packets)).pictures if each] == [0, 0, 1, 0, 1]


def test_lost_idr_picture_is_noticed_where_one_like_it_is_held() -> None:
    sets = [ONE_BEFORE, TWO_BEFORE, THREE_BEFORE]
    period = [picture(1, number, f"{each} {NO_LONG_TERM}") for number, each in enumerate(sets, start=1)]
    clip = by_hand(picture(19), *period, picture(19), picture(1, 2, f"0 0 010 1 010 1 {NO_LONG_TERM}"))
    assert read(clip).missing == 0
    assert [each.missing for each in read_without(clip, 4).pictures if each] == [0, 0, 0, 0, 1]


def test_order_counts_go_round() -> None:
    others = [picture(1, number % 16, f"{ONE_BEFORE} {NO_LONG_TERM}") for number in range(1, 40)]
    packets = [picture(19), *others, picture(19)]
    found = read(by_hand(*packets))
    assert (found.missing, found.holes) == (0, 0)
    assert [each.order for each in found.pictures if each] == [*((1, number) for number in range(40)), (2, 0)]


@pytest.mark.parametrize(
    ("long_term", "missing"),
    [
        ("010 1 0", 0),  # from the SPS: any with low bits 5, used
        ("010 1 1 010", 1),  # the same, one period back: 5 - 16
        ("1 010 0011 1 0", 0),  # any with low bits 3
        ("1 010 0010 1 0", 1),  # low bits 2, which nobody keeps
        ("1 010 0010 0 0", 0),  # not needed by this picture
        ("1 010 0011 1 1 1", 0),  # 3 in this period
    ],
)
def test_long_term_references(long_term: str, missing: int) -> None:
    """Of the sixth picture, which keeps three."""
    sets = [ONE_BEFORE, ONE_BEFORE, ONE_BEFORE, ONE_BEFORE, TWO_BEFORE]
    packets = [picture(1, number, f"{each} {NO_LONG_TERM}") for number, each in enumerate(sets, start=1)]
    found = read(by_hand(picture(19), *packets, picture(1, 6, f"{THREE_BEFORE} {long_term}")))
    assert [each.missing for each in found.pictures if each] == [0, 0, 0, 0, 0, 0, missing]
