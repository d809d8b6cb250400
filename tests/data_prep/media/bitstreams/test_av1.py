"""AV1's headers: what is missing, as far as they tell, and the order of presentation."""

from pathlib import Path

import pytest

from data_prep.media.bitstreams.av1_headers import read_sequence_header
from data_prep.media.bitstreams.coded_picture import Role
from tests.made_clips import write_lively_mp4
from tests.read_pictures import Packets, assert_sound, bits, last_shown, packets_of, read, read_without

SVT = {
    "pyramid": "keyint=16",
    "low delay": "keyint=12:pred-struct=1",
    "forward keyframes": "keyint=16:irefresh-type=1",
    "film grain": "keyint=24:film-grain=8",
}


def lively(path: Path, params: str, frames: int = 40) -> Packets:
    options = {"svtav1-params": params, "crf": "45", "preset": "12"}
    return packets_of(write_lively_mp4(path, options, frames=frames, codec="libsvtav1"))


@pytest.mark.parametrize("name", SVT)
def test_lost_packet_is_noticed_and_a_sound_clip_is_not(tmp_path: Path, name: str) -> None:
    """Only what comes right before a key frame with which the numbers begin anew leaves no trace."""
    clip = lively(tmp_path / "clip.mp4", SVT[name])
    pictures = assert_sound(clip)
    assert pictures[0].role is Role.FRESH_START
    last = last_shown(pictures)
    for number, picture in enumerate(pictures[:-1]):
        without = read_without(clip, number)
        if picture.order not in last:
            assert without.missing or without.holes


# A stream written by hand: 16x16, order hints of 4 bits, no choice of screen content tools.
SEQUENCE = "000 0 0 0 0 00000 000000000000 00000 0011 0011 1111 1111 0 0 0 0 0 0 0 0 1 0 0 0 0 011 0 0 0"


def obu(kind: int, text: str) -> bytes:
    content = bits(text)
    return bytes([kind << 3 | 0b10, len(content)]) + content


def frame(hint: int, *, slots: int = 0, uses: int = 0, stated: list[int] | None = None) -> bytes:
    """Return a shown inter frame which `slots` hold from then on, and which needs slot `uses` alone."""
    resilient = "0" if stated is None else "1"
    primary = "111" if stated is None else ""
    hints = "".join(f"{each:04b}" for each in stated or [])
    return obu(6, f"0 01 1 {resilient} 0 0 {hint:04b} {primary} {slots:08b} {hints} 0 {f'{uses:03b}' * 7} 1")


def key(hint: int = 0) -> bytes:
    return obu(6, f"0 00 1 0 0 {hint:04b} 1 1")


def hidden(hint: int, slots: int) -> bytes:
    return obu(6, f"0 01 0 1 0 0 0 {hint:04b} 111 {slots:08b} 0 {'000' * 7} 1")


def show(slot: int) -> bytes:
    return obu(3, f"1 {slot:03b} 1")


def by_hand(*packets: bytes) -> Packets:
    return Packets("av1", bytes([0x81, 0, 0, 0]) + obu(1, SEQUENCE), list(packets), [])


def test_sequence_header_is_read() -> None:
    sequence = read_sequence_header(bits(SEQUENCE))
    assert (sequence.still, sequence.order_bits, sequence.frame_id_bits) == (0, 4, 0)
    assert (sequence.screen_content, sequence.integer_motion) == (0, 2)


def test_numbers_go_round_and_begin_anew() -> None:
    clip = by_hand(key(), *(frame(number % 16, slots=1) for number in range(1, 40)), key(), frame(1))
    found = read(clip)
    assert (found.missing, found.holes) == (0, 0)
    orders = [each.order for each in found.pictures if each]
    assert orders == [*((1, number) for number in range(40)), (2, 0), (2, 1)]
    lost_key = read(clip, clip.data[:40] + clip.data[41:])
    assert [each.missing for each in lost_key.pictures if each] == [0] * 40 + [1]


def test_key_frame_that_goes_on_with_the_numbers_ends_no_period() -> None:
    clip = by_hand(key(), *(frame(number) for number in range(1, 12)), key(12), frame(13))
    assert [each.order for each in read(clip).pictures if each] == [(1, number) for number in range(14)]
    assert read_without(clip, 11).holes == 1


def test_hidden_frame_is_shown_later() -> None:
    clip = by_hand(key(), hidden(3, 0b10) + frame(1), frame(2, uses=1), show(1), frame(4))
    assert [each.order for each in read(clip).pictures if each] == [(1, number) for number in range(5)]
    stale = by_hand(key(), frame(1, slots=0b10), frame(2), show(1), frame(4))
    assert [each.missing for each in read(stale).pictures if each] == [0, 0, 0, 1, 0]


def test_frame_that_states_what_slots_should_hold_tells_of_lost_ones() -> None:
    clip = by_hand(key(), frame(1, slots=1), frame(2, slots=2), frame(3, stated=[1, 2, 0, 0, 0, 0, 0, 0]), frame(4))
    assert read(clip).missing == 0
    assert [each.missing for each in read_without(clip, 2).pictures if each] == [0, 0, 1, 0]


def test_stream_that_begins_in_the_middle_lacks_something() -> None:
    found = read(by_hand(frame(7, slots=0xFF), frame(8, uses=3)))
    assert [each.missing for each in found.pictures if each] == [1, 0]


def test_roles_and_new_sequence_headers() -> None:
    other = obu(1, SEQUENCE.replace("0011 0011 1111 1111", "0011 0011 1111 0111"))
    sequence = obu(1, SEQUENCE)
    found = read(by_hand(sequence + key(), frame(1), other + frame(2), other + key(), b"\x12\x00"))
    assert [each and (each.role, each.new_parameters) for each in found.pictures] == [
        (Role.FRESH_START, False),
        (Role.REFERENCE, False),
        (Role.REFERENCE, True),
        (Role.FRESH_START, False),
        None,
    ]
