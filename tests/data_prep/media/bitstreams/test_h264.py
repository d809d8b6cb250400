"""H.264's headers: roles, what is missing, and the order of presentation."""

from pathlib import Path

import pytest

from data_prep.media.bitstreams.coded_picture import Role
from data_prep.media.bitstreams.h264_headers import read_sps
from data_prep.media.bitstreams.pictures import picture_reader
from tests.made_clips import write_lively_mp4
from tests.read_pictures import Packets, assert_sound, bits, last_shown, packets_of, read, read_without, unit

X264 = {
    "short groups": "keyint=12:min-keyint=12:scenecut=0",
    "pyramid": "keyint=30:bframes=7:b-pyramid=normal:b-adapt=0:ref=6",
    "no B-frames": "keyint=24:bframes=0:weightp=2",
    "open groups": "keyint=12:min-keyint=12:open-gop=1:bframes=4:b-adapt=0",
    "intra refresh": "keyint=24:intra-refresh=1",
    "interlaced": "keyint=24:interlaced=1:tff=1",
    "bottom field first": "keyint=24:bff=1",
    "many slices": "keyint=24:slices=2",
    "slices by size": "keyint=24:slice-max-size=300",
}


def lively(path: Path, params: str, frames: int = 50) -> Packets:
    options = {"x264-params": params, "crf": "30", "preset": "veryfast"}
    return packets_of(write_lively_mp4(path, options, frames=frames))


@pytest.mark.parametrize("name", X264)
def test_lost_picture_is_noticed_and_a_sound_clip_is_not(tmp_path: Path, name: str) -> None:
    """A reference by the next picture's numbers, a leaf by the order; what ends a period leaves no trace in it."""
    clip = lively(tmp_path / "clip.mp4", X264[name])
    pictures = assert_sound(clip)
    last = last_shown(pictures)
    for number, picture in enumerate(pictures[:-1]):
        without = read_without(clip, number)
        if picture.role is Role.LEAF:
            assert (without.missing, without.holes) == (0, 1)
        elif picture.order not in last:
            assert without.missing >= 1


# A baseline stream of 16x16 pictures, written by hand: frame_num of 4 bits, order by type 0 with 4 bits.
SPS = "01100111 01000010 11000000 00001010 1 1 1 1 010 0 1 1 1 1 0 0 1"
PPS = "01101000 1 1 0 0 1 1 1 0 00 1 1 1 0 0 0 1"


def configuration(sps: str = SPS, pps: str = PPS) -> bytes:
    first, second = bits(sps), bits(pps)
    record = bytes([1, 66, 192, 10, 0xFF, 0xE1]) + len(first).to_bytes(2, "big") + first
    return record + b"\x01" + len(second).to_bytes(2, "big") + second


def picture(frame_num: int, lsb: int, *, idr: bool = False, reference: bool = True, rest: str = "") -> bytes:
    """Return a packet of one P slice, or of an I slice of an IDR picture."""
    header = f"0{'11' if reference else '00'}{5 if idr else 1:05b}"
    kind, number = ("011", "1") if idr else ("1", "")
    return unit(bits(f"{header} 1 {kind} 1 {frame_num:04b} {number} {lsb:04b} {rest} 1") + b"\xff")


def by_hand(*packets: bytes, sps: str = SPS) -> Packets:
    return Packets("h264", configuration(sps), list(packets), [])


def test_numbers_go_round_and_begin_anew() -> None:
    clip = by_hand(*(picture(n % 20 % 16, 2 * (n % 20) % 16, idr=n % 20 == 0) for n in range(45)))
    found = read(clip)
    assert (found.missing, found.holes) == (0, 0)
    assert [each.order for each in found.pictures if each] == [(1 + n // 20, 2 * (n % 20)) for n in range(45)]


@pytest.mark.parametrize(
    ("frame_nums", "missing"),
    [
        ([0, 1, 2, 3], [0, 0, 0, 0]),
        ([0, 1, 3, 4], [0, 0, 1, 0]),
        ([0, 4, 5], [0, 3, 0]),
        ([0, 1, 1], [0, 0, 1]),  # fifteen, or an IDR picture
        ([0, 3, 1], [0, 2, 1]),  # backwards: an IDR picture
    ],
)
def test_gaps_of_frame_num(frame_nums: list[int], missing: list[int]) -> None:
    packets = [picture(number, 0, idr=number == 0) for number in frame_nums]
    assert [each.missing for each in read(by_hand(*packets)).pictures if each] == missing
    allowed = SPS.replace("010 0 1 1", "010 1 1 1")
    assert read(by_hand(*packets, sps=allowed)).missing == 0


def test_lost_idr_picture_is_noticed_where_frame_num_happens_to_go_on() -> None:
    """A period of seventeen ends with frame_num 0, and the next one's second has 1, but an order seen before."""
    period = [picture(n % 16, 2 * n % 16, idr=n == 0) for n in range(17)]
    clip = by_hand(*period, picture(0, 0, idr=True), picture(1, 10), picture(2, 4, reference=False), picture(2, 12))
    assert read(clip).missing == 0
    without = read_without(clip, 17)
    assert [each.missing for each in without.pictures if each] == [0] * 17 + [1, 0, 0]


def test_leaves_share_the_number_after_the_last_reference() -> None:
    numbers = [(0, True), (1, True), (2, False), (2, False), (2, True), (4, False), (4, False), (4, True)]
    packets = [picture(n, 0, idr=n == 0, reference=reference) for n, reference in numbers]
    assert [each.missing for each in read(by_hand(*packets)).pictures if each] == [0, 0, 0, 0, 0, 1, 0, 0]


def test_picture_that_empties_the_references_begins_the_numbers_anew() -> None:
    """Memory management control operation 5: the next picture's frame_num is 1."""
    emptied = picture(7, 14, rest="0 0 1 00110 1")
    clip = by_hand(*(picture(n, 2 * n, idr=n == 0) for n in range(7)), emptied, picture(1, 2), picture(2, 4))
    assert read(clip).missing == 0
    kept = picture(7, 14, rest="0 0 0")
    clip = by_hand(*(picture(n, 2 * n, idr=n == 0) for n in range(7)), kept, picture(1, 2), picture(2, 4))
    assert read(clip).missing == 1


def test_stream_that_begins_in_the_middle_lacks_something() -> None:
    assert [each.missing for each in read(by_hand(picture(3, 6), picture(4, 8))).pictures if each] == [1, 0]


def test_pictures_that_lean_over_the_start_lack_something() -> None:
    """A clip cut at an intra picture that is no IDR picture: a B picture that is shown before it needs what was cut."""
    intra, leading, trailing = "01100001 1 011 1 0101 1000", "00000001 1 010 1 0110 0110", "01100001 1 1 1 0110 1110"
    packets = [unit(bits(f"{each} 1") + b"\xff") for each in (intra, leading, trailing)]
    assert [each.missing for each in read(by_hand(*packets)).pictures if each] == [0, 1, 0]
    assert [each.missing for each in read(by_hand(packets[0], packets[2])).pictures if each] == [0, 0]


FIELDS = SPS.replace("010 0 1 1 1 1", "010 0 1 1 0 0 1")  # frame_mbs_only_flag 0


def field(frame_num: int, lsb: int, *, bottom: int, idr: bool = False) -> bytes:
    kind, number = ("011", "1") if idr else ("1", "")
    return unit(
        bits(f"0110{'0101' if idr else '0001'} 1 {kind} 1 {frame_num:04b} 1{bottom} {number} {lsb:04b} 1") + b"\xff"
    )


def test_two_fields_of_a_frame_share_their_number() -> None:
    fields = [field(0, 0, bottom=0, idr=True), field(0, 1, bottom=1)]
    for number in range(1, 6):
        fields += [field(number, 2 * number, bottom=0), field(number, 2 * number + 1, bottom=1)]
    alone = read(by_hand(*fields, sps=FIELDS))
    assert [each.order for each in alone.pictures if each] == [(1, number) for number in range(12)]
    pairs = [first + second for first, second in zip(fields[::2], fields[1::2], strict=True)]
    together = read(by_hand(*pairs, sps=FIELDS))
    assert [each.order for each in together.pictures if each] == [(1, 2 * number) for number in range(6)]
    assert alone.missing == together.missing == alone.holes == 0
    assert [each.missing for each in read_without(by_hand(*pairs, sps=FIELDS), 3).pictures if each] == [0, 0, 0, 1, 0]


def test_order_by_frame_num_alone() -> None:
    """Type 2: shown in the order of decoding."""
    sps = SPS.replace("1 1 1 1 010 0", "1 1 011 010 0")
    packets = [
        unit(bits(f"0110{'0101' if not n else '0001'} 1 {'011' if not n else '1'} 1 {n % 16:04b} 1111"))
        for n in range(20)
    ]
    found = read(by_hand(*packets, sps=sps))
    assert [each.order for each in found.pictures if each] == [(1, 2 * number) for number in range(20)]
    assert found.missing == 0


def test_order_by_expected_differences_is_not_known() -> None:
    sps = SPS.replace("1 1 1 1 010 0", "1 1 010 1 1 1 1 010 0")
    clip = by_hand(picture(0, 0, idr=True), picture(1, 0), picture(3, 0), sps=sps)
    assert [(each.order, each.missing) for each in read(clip).pictures if each] == [(None, 0), (None, 0), (None, 1)]


def test_high_profile_with_scaling_matrices_is_read() -> None:
    """Profile 244, 4:4:4 of 10 bits, one matrix of 16 that ends after two steps and one of 64 that never changes."""
    matrices = f"1 010 000010011 00000 1 {'1' * 64} 00000"
    depths, numbers = "1 00100 0 011 011 0 1", "00100 1 00110 010 1 1 1 1"
    sps = read_sps(bits(f"01100111 11110100 00000000 00001010 {depths} {matrices} {numbers}"))
    assert (sps.frame_num_bits, sps.order_type, sps.order_bits) == (7, 0, 9)
    assert (sps.gaps_allowed, sps.frames_only, sps.has_chroma, sps.colour_planes) == (True, True, True, False)


def units_of(*headers: int) -> bytes:
    return b"".join(unit(bytes([header, 0xFF, 0xFF])) for header in headers)


@pytest.mark.parametrize(
    ("units", "role"),
    [
        ([0x67, 0x68, 0x65, 0x65], Role.FRESH_START),
        ([0x06, 0x41, 0x41], Role.REFERENCE),
        ([0x06, 0x01, 0x01], Role.LEAF),
        ([0x01, 0x41], Role.REFERENCE),  # two fields of one frame, the second a reference
        ([0x06], None),
        ([], None),
    ],
)
def test_role_is_read_from_the_units_headers(units: list[int], role: Role | None) -> None:
    packet = units_of(*units)
    found = read(by_hand(packet, packet[:-1])).pictures
    assert (found[0].role if found[0] else None) is role
    assert found[1] is None


def test_only_h264_as_mp4_holds_it_is_read_so() -> None:
    assert picture_reader("h264", bytes([1, 100, 0, 31, 0xFF, 0xE1, 0]))
    assert picture_reader("h264", bytes([0, 0, 0, 1, 0x67, 100, 0])) is None
    assert picture_reader("vp9", bytes([1, 100, 0, 31, 0xFF, 0xE1, 0])) is None
    assert picture_reader("h264", None) is None


def test_parameter_sets_are_new_where_they_differ() -> None:
    other = PPS.replace("00 1 1 1", "00 011 1 1")
    clip = by_hand(
        picture(0, 0, idr=True),
        unit(bits(SPS)) + unit(bits(PPS)) + picture(0, 0, idr=True),
        unit(bits(other)),
        picture(1, 2),
        unit(bits(other)) + picture(2, 4),
        unit(bits(PPS)) + picture(3, 6),
    )
    told = [each and each.new_parameters for each in read(clip).pictures]
    assert told == [False, False, None, True, False, True]


def test_second_sample_entry_brings_parameters() -> None:
    reader = picture_reader("h264", configuration())
    assert reader is not None
    first = reader.read(memoryview(picture(0, 0, idr=True)), configuration())
    second = reader.read(memoryview(picture(0, 0, idr=True)), configuration(pps=PPS.replace("00 1 1 1", "00 011 1 1")))
    assert first and second
    assert (first.new_parameters, second.new_parameters) == (False, True)


def without_unit(packet: bytes, number: int) -> bytes:
    """Return a packet without its n-th NAL unit."""
    starts, position = [], 0
    while position < len(packet):
        starts.append(position)
        position += 4 + int.from_bytes(packet[position : position + 4], "big")
    starts.append(position)
    return packet[: starts[number]] + packet[starts[number + 1] :]


@pytest.mark.parametrize("slice_number", [0, 1])
def test_slice_missing_from_one_picture_of_many(tmp_path: Path, slice_number: int) -> None:
    clip = lively(tmp_path / "clip.mp4", X264["many slices"])
    data = [without_unit(each, slice_number) if number == 40 else each for number, each in enumerate(clip.data)]
    assert [bool(each and each.torn) for each in read(clip, data).pictures] == [number == 40 for number in range(50)]
