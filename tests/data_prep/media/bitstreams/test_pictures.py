"""What the readers have in common: bits, holes among numbers, torn pictures, and that no bytes make them raise."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from data_prep.media.bitstreams.bit_reader import BitReader, Unreadable
from data_prep.media.bitstreams.coded_picture import PeriodNumbers, SliceLayout
from data_prep.media.bitstreams.nal_units import avc_configuration, bounds, unescaped
from data_prep.media.bitstreams.pictures import DisplayOrder, holes, picture_reader
from tests.made_clips import real_clip, write_lively_mp4
from tests.read_pictures import Packets, assert_sound, bits, packets_of, read


def test_bits_and_codes() -> None:
    reader = BitReader(bits("101 1 010 011 00100 00101 00110 0 1"))
    assert (reader.bits(3), reader.ue(), reader.ue(), reader.ue()) == (5, 0, 1, 2)
    assert (reader.se(), reader.se(), reader.se()) == (2, -2, 3)
    assert (reader.flag(), reader.flag()) == (0, 1)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x01", b"\x00" * 5 + b"\xff" * 9])
def test_codes_past_the_end_are_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        BitReader(data).ue()
    with pytest.raises(Unreadable):
        BitReader(data).bits(8 * len(data) + 1)
    with pytest.raises(Unreadable):
        BitReader(b"").flag()


def test_emulation_prevention_is_removed() -> None:
    assert unescaped(b"\x67\0\0\3\1\0\0\3\0\0\3\2\3") == b"\x67\0\0\1\0\0\0\0\2\3"


def test_units_of_a_packet() -> None:
    packet = b"\0\2ab\0\1c"
    assert bounds(memoryview(packet), 2) == ([(2, 4), (6, 7)], True)
    assert bounds(memoryview(packet[:-1]), 2) == ([(2, 4)], False)
    assert bounds(memoryview(b"\0\0" + packet), 2) == ([], False)


def test_torn_configuration_gives_what_is_before_the_tear() -> None:
    whole = bytes([1, 66, 0, 10, 0xFF, 0xE1, 0, 2]) + b"gS" + bytes([1, 0, 1]) + b"h"
    assert avc_configuration(whole) == (4, [b"gS", b"h"])
    assert avc_configuration(whole[:-1]) == (4, [b"gS"])
    assert avc_configuration(whole[:9]) == (4, [])


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], 0),
        ([7], 0),
        (list(range(20)), 0),
        (list(range(0, 40, 2)), 0),
        ([*range(10), *range(11, 30)], 1),
        ([*range(0, 20, 2), *range(26, 60, 2)], 3),
        ([0, 1, 2, 4, 5], 0),  # a hole in too few
        ([n for n in range(60) if n % 3], 0),  # a pattern
        ([n + n // 9 for n in range(100)], 0),  # fewer than nine of ten alike
        ([*range(30), *range(20, 60)], 0),  # backwards: no hole
        ([*range(0, 40, 2), *range(41, 80, 2)], 0),  # no whole number of steps
    ],
)
def test_holes_in_even_numbers(numbers: list[int], expected: int) -> None:
    assert holes(Counter(later - earlier for earlier, later in pairwise(numbers))) == expected


def test_order_of_presentation_knows_periods() -> None:
    """Groups of 24 pictures, in the order of decoding; each begins at 0, and the last picture of one is missing."""
    order = DisplayOrder()
    group = [0, *(number + shift for number in range(3, 24, 3) for shift in (0, -2, -1)), 23, 22]
    for period in range(3):
        for number in group[:-1] if period == 1 else group:
            order.add((period, 2 * number))
    assert order.holes() == 1
    assert order.holes() == 1


@pytest.mark.parametrize(
    ("numbers", "anew"),
    [
        (list(range(0, 30000, 2)), []),
        ([*range(0, 30000, 2), 1, 2], [15000]),
        ([0, 8, 4, 2, 6, 16, 12, 10, 14], []),
        ([0, 4, 2, 8, 6, 4, 2, 8, 6], [5]),  # an IDR picture is missing before the second 4
        ([*range(0, 6000, 2), 2, 4], [3000]),
        ([0] * 20, []),  # an encoder that numbers nothing
    ],
)
def test_numbers_that_begin_anew(numbers: list[int], anew: list[int]) -> None:
    period = PeriodNumbers()
    assert [position for position, number in enumerate(numbers) if period.begin_anew(number)] == anew


def test_picture_with_fewer_slices_than_all_before_is_torn() -> None:
    layout = SliceLayout()
    assert not any(layout.is_torn([0, 40, 80]) for _ in range(40))
    assert layout.is_torn([0, 80])
    assert not layout.is_torn([0, 40, 80])
    assert not layout.is_torn([0, 50, 80])  # cuts follow the content from now on
    assert not layout.is_torn([0, 80])


def test_few_pictures_cut_alike_prove_nothing() -> None:
    layout = SliceLayout()
    assert not any(layout.is_torn([0, 40]) for _ in range(10))
    assert not layout.is_torn([0])


def damaged(clip: Packets, rng: random.Random) -> list[bytes]:
    """Return a clip's packets, one in three with a few bits changed near its beginning or anywhere, cut, or gone."""
    found = []
    for packet in clip.data:
        data = bytearray(packet)
        for _ in range(rng.choice((0, 0, 1, 4))):
            data[rng.randrange(rng.choice((min(40, len(data)), len(data))))] ^= 1 << rng.randrange(8)
        found.append(bytes(data[: rng.choice((len(data), len(data), len(data), rng.randrange(len(data) + 1)))]))
    return found


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264-params": "keyint=8:bframes=2:repeat-headers=1", "preset": "ultrafast"}),
        ("libx265", {"x265-params": "keyint=8:repeat-headers=1:log-level=none:pools=1", "preset": "ultrafast"}),
        ("libsvtav1", {"svtav1-params": "keyint=8", "preset": "12"}),
    ],
)
def test_no_bytes_make_a_reader_raise(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    clip = packets_of(write_lively_mp4(tmp_path / "clip.mp4", options, frames=24, codec=codec))
    rng = random.Random(0)
    noticed = 0
    for _ in range(60):
        found = read(clip, damaged(clip, rng))
        noticed += bool(found.missing or found.holes or None in found.pictures)
        extradata = bytearray(clip.extradata)
        extradata[rng.randrange(len(extradata))] ^= 1 << rng.randrange(8)
        reader = picture_reader(clip.codec, bytes(extradata[: rng.randrange(len(extradata) + 1)]))
        if reader:
            reader.read(memoryview(clip.data[0]), bytes(extradata))
    assert noticed > 50


@pytest.mark.parametrize(
    "name",
    [
        "cctv/dvrscan_traffic_camera.mp4",
        "cctv/intel_car-detection.mp4",
        "cctv/intel_one-by-one-person-detection.mp4",
        "odd/decord_video_90.mov",
        "odd/torchcodec_av1_video.mkv",
        "odd/torchcodec_h264_10bits.mp4",
        "odd/torchcodec_h265_10bits.mp4",
        "odd/torchcodec_h265_video.mp4",
    ],
)
def test_sound_real_clips(name: str) -> None:
    assert_sound(packets_of(real_clip(name)))
