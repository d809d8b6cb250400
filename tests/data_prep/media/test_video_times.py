"""Clips with wrong times, missing packets, or packets that bring what others need: their samples, and what is said.

A clip shows 24 frames a second, whose pictures tell their numbers.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data_prep.media import video
from data_prep.media.video import Video
from tests.made_clips import join_by_sample_entries, number_of, picture, remux, write_lively_mp4, write_numbered_mp4

PLAIN = "keyint=48:min-keyint=48:bframes=0"
WITH_B = "keyint=48:min-keyint=48:bframes=3:b-adapt=0"

Change = Callable[[list[Any]], Iterable[Any]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("numbered")
    return {
        "plain": write_numbered_mp4(folder / "plain.mp4", PLAIN),
        "with B": write_numbered_mp4(folder / "with_b.mp4", WITH_B),
    }


def seen(path: Path, fps: str = "1") -> tuple[dict[int, int], dict[str, int]]:
    """Return the number that each sample's picture tells, and the faults."""
    with Video(path) as clip:
        shown = {sample: number_of(image) for sample, image in clip.samples(Fraction(fps))}
        assert (clip.reason is None) == (not clip.faults)
        return shown, dict(clip.faults)


def shifted(late: dict[int, int]) -> Change:
    """Show some frames, by number, later than they should be; negative for earlier."""

    def change(packets: list[Any]) -> list[Any]:
        before = min(0, *late.values())
        frames = sorted(packets, key=lambda packet: packet.pts)
        for number, ticks in late.items():
            frames[number].pts += ticks
        for packet in packets:
            packet.dts += before - 4
        return packets

    return change


def without(*numbers: int) -> Change:
    return lambda packets: [packet for number, packet in enumerate(packets) if number not in numbers]


def paused(after: int, ticks: int) -> Change:
    """Show everything from frame `after` on later, or earlier for negative ticks."""

    def change(packets: list[Any]) -> list[Any]:
        frames = sorted(packets, key=lambda packet: packet.pts)
        for packet in frames[after:]:
            packet.pts += ticks
        for place, packet in enumerate(packets):
            packet.dts += ticks * (place >= after + 4) - 4
        return packets

    return change


EVERY_SECOND = {0: 0, 1: 24, 2: 48, 3: 72}


@pytest.mark.parametrize("clip", ["plain", "with B"])
@pytest.mark.parametrize("late", [5 * 24, 300 * 24, -5 * 24, 3, -3])
@pytest.mark.parametrize("frame", [1, 23, 48, 49, 70])
def test_one_wild_time_costs_that_frame(
    clips: dict[str, Path], tmp_path: Path, clip: str, frame: int, late: int
) -> None:
    path = remux(clips[clip], tmp_path / "clip.mp4", shifted({frame: late}))
    expected = {second: first + (first == frame) for second, first in EVERY_SECOND.items()}
    assert seen(path) == (expected, {"frames without a sensible time": 1})


@pytest.mark.parametrize("clip", ["plain", "with B"])
@pytest.mark.parametrize("late", [300 * 24, -300 * 24])
def test_a_wild_first_time_does_not_count(clips: dict[str, Path], tmp_path: Path, clip: str, late: int) -> None:
    path = remux(clips[clip], tmp_path / "clip.mp4", shifted({0: late}))
    found, faults = seen(path)
    assert {second: first - second * 24 for second, first in found.items()} == dict.fromkeys(range(4), 1)
    assert faults == {"frames without a sensible time": 1}


@pytest.mark.parametrize("clip", ["plain", "with B"])
@pytest.mark.parametrize("seconds", [2, 590, 700, 10_000_000])
def test_a_pause_keeps_its_time_and_is_told(clips: dict[str, Path], tmp_path: Path, clip: str, seconds: int) -> None:
    path = remux(clips[clip], tmp_path / "clip.mp4", paused(24, 24 * seconds))
    with Video(path) as opened:
        found = {sample: number_of(image) for sample, image in opened.samples(Fraction(1))}
        reason = opened.reason
    assert found == {0: 0, seconds + 1: 24, seconds + 2: 48, seconds + 3: 72}
    assert reason == f"jumps forward in time: 1; longest jump: {seconds + 1 / 24:.6g} s"


def test_after_a_lasting_jump_back_numbering_goes_on(clips: dict[str, Path], tmp_path: Path) -> None:
    """Fragments state their own times: the third's clock was set back by a second and a half."""
    path = remux(clips["plain"], tmp_path / "clip.mp4", lambda packets: packets, movflags="frag_keyframe+empty_moov")
    content = bytearray(path.read_bytes())
    fragment = content.index(b"tfdt", content.index(b"tfdt") + 4)
    assert content[fragment + 4] == 1  # a version with 64-bit times
    assert content[fragment + 8 : fragment + 16] == (48).to_bytes(8, "big")
    content[fragment + 8 : fragment + 16] = (12).to_bytes(8, "big")
    path.write_bytes(content)
    assert seen(path) == ({0: 0, 1: 24, 2: 48, 3: 72}, {"jumps back in time": 1})


def test_a_second_in_which_no_frame_is_shown_has_no_sample(clips: dict[str, Path], tmp_path: Path) -> None:
    def slower(packets: list[Any]) -> list[Any]:
        for number, packet in enumerate(packets[:5]):
            packet.pts = packet.dts = 48 * number
        return packets[:5]

    assert seen(remux(clips["plain"], tmp_path / "clip.mp4", slower)) == ({0: 0, 2: 1, 4: 2, 6: 3, 8: 4}, {})


@pytest.mark.parametrize("clip", ["plain", "with B"])
def test_a_missing_reference_is_told(clips: dict[str, Path], tmp_path: Path, clip: str) -> None:
    found, faults = seen(remux(clips[clip], tmp_path / "clip.mp4", without(13)))
    assert list(found) == [0, 1, 2, 3]
    assert faults["pictures missing that others need"] == 1


@pytest.mark.parametrize("number", [12, 13, 48])
def test_a_packet_that_comes_twice_is_told(clips: dict[str, Path], tmp_path: Path, number: int) -> None:
    def twice(packets: list[Any]) -> list[Any]:
        again = av.Packet(bytes(packets[number]))
        again.time_base, again.is_keyframe = packets[number].time_base, packets[number].is_keyframe
        packets.insert(number + 1, again)
        for place, packet in enumerate(packets):
            packet.pts = packet.dts = place
        return packets

    _, faults = seen(remux(clips["plain"], tmp_path / "clip.mp4", twice))
    assert faults["packets that repeat the one before"] == 1


def test_a_clip_that_begins_without_a_keyframe_counts_from_its_first_packet(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    found, faults = seen(remux(clips["plain"], tmp_path / "clip.mp4", without(*range(10))))
    assert found == {1: 48, 2: 58, 3: 82}  # frame 10 is the first packet; frames 10 to 47 can't be decoded
    assert faults["packets that gave no frame"] == 38


def every_sample(path: Path) -> tuple[list[tuple[int, bytes]], str | None]:
    with Video(path) as clip:
        return [(sample, image.convert("RGB").tobytes()) for sample, image in clip.samples(Fraction(1))], clip.reason


def test_a_second_sample_entry_reaches_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first entry ends within a group that no sample after its first second needs."""
    first = write_lively_mp4(tmp_path / "1.mp4", {"x264-params": "bframes=0:keyint=6", "crf": "30"}, frames=14)
    second = write_lively_mp4(
        tmp_path / "2.mp4", {"x264-params": "bframes=0:keyint=6:cabac=0:8x8dct=0:chroma-qp-offset=5", "crf": "24"}
    )
    path = join_by_sample_entries(first, second, tmp_path / "clip.mp4")
    found = every_sample(path)
    monkeypatch.setattr(video, "picture_reader", lambda *_: None)
    assert found == every_sample(path)
    assert (len(found[0]), found[1]) == (5, None)
    alone = dict(every_sample(second)[0])
    assert dict(every_sample(path)[0])[1] not in alone.values()  # frame 10 of the second clip, no sample of it alone


def test_parameters_in_a_packet_that_nothing_needs_reach_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second half's picture parameters travel with the last picture of the first half, a leaf."""
    options = "keyint=200:bframes=3:b-adapt=0:b-pyramid=none"
    first = write_lively_mp4(tmp_path / "1.mp4", {"x264-params": options, "crf": "30"}, frames=48)
    second = write_lively_mp4(
        tmp_path / "2.mp4", {"x264-params": f"{options}:chroma-qp-offset=6", "crf": "30"}, frames=48
    )
    path = _with_parameters_in_a_leaf(first, second, tmp_path / "clip.mp4")
    found = every_sample(path)
    monkeypatch.setattr(video, "picture_reader", lambda *_: None)
    assert found == every_sample(path)
    assert (len(found[0]), found[1]) == (4, None)


def parameter_sets(extradata: bytes) -> tuple[bytes, bytes]:
    """Return the one SPS and the one PPS of an mp4's decoder configuration, each with its length before it."""
    end = 8 + int.from_bytes(extradata[6:8], "big")
    sps, pps = extradata[6:end], extradata[end + 1 :]
    return b"\0\0" + sps, b"\0\0" + pps[: 2 + int.from_bytes(pps[:2], "big")]


def _with_parameters_in_a_leaf(first: Path, second: Path, path: Path) -> Path:
    """Write two clips one after the other under the first one's configuration, the second one's PPS in between."""
    with av.open(str(first)) as one, av.open(str(second)) as two, av.open(str(path), "w", format="mp4") as container:
        (sps, pps), (other_sps, other_pps) = (
            parameter_sets(source.streams.video[0].codec_context.extradata) for source in (one, two)
        )
        assert sps == other_sps
        assert pps != other_pps
        stream = container.add_stream_from_template(one.streams.video[0])
        packets = [[packet for packet in source.demux(video=0) if packet.size] for source in (one, two)]
        leaf = packets[0][-1]
        changed = av.Packet(bytes(leaf) + other_pps)
        changed.pts, changed.dts, changed.time_base = leaf.pts, leaf.dts, leaf.time_base
        later = 48 * (leaf.duration or 1)
        for packet in packets[1]:
            packet.pts, packet.dts = packet.pts + later, packet.dts + later
        for packet in [*packets[0][:-1], changed, *packets[1]]:
            packet.stream = stream
            container.mux(packet)
    return path


def test_a_first_time_that_was_moved_to_the_clips_start_is_no_fault(tmp_path: Path) -> None:
    """FFmpeg writes so in fragments when the sound begins before the pictures."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        video_stream = container.add_stream("libx264", rate=24)
        video_stream.width, video_stream.height, video_stream.pix_fmt = 64, 48, "yuv420p"
        video_stream.options = {"x264-params": "keyint=24:bframes=0:scenecut=0", "crf": "10"}
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 80000, 1024):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 16000, start, Fraction(1, 16000)
            container.mux(sound.encode(silence))
        for number in range(96):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number + 36, Fraction(1, 24)
            container.mux(video_stream.encode(frame))
        container.mux([*video_stream.encode(), *sound.encode()])
    with av.open(str(path)) as container:
        first, second, *_ = (packet.dts for packet in container.demux(video=0) if packet.size)
    assert second - first > 512  # of 12288 ticks a second, where a frame takes 512
    assert seen(path) == (EVERY_SECOND, {})


def test_swapped_packets_are_told_where_a_sample_changes(tmp_path: Path) -> None:
    """Times stay; of HEVC, whose decoder shows pictures as they come once it holds as many as it was told to."""
    options = {"x265-params": "keyint=24:min-keyint=24:no-open-gop=1:bframes=4:b-adapt=0:log-level=0", "crf": "30"}
    source = write_lively_mp4(tmp_path / "sound.mp4", options, codec="libx265", frames=72)
    sound, told = every_sample(source), set()
    assert sound[1] is None
    for first in range(24, 34):

        def swap(packets: list[Any], first: int = first) -> list[Any]:
            one, other = packets[first : first + 2]
            (one.pts, one.dts), (other.pts, other.dts) = (other.pts, other.dts), (one.pts, one.dts)
            packets[first : first + 2] = [other, one]
            return packets

        found = every_sample(remux(source, tmp_path / "clip.mp4", swap, video_track_timescale="12288"))
        assert found[0] == sound[0] or found[1] is not None
        told.add(found[1])
    assert "pictures decoded out of order: 1" in told
