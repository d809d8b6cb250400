import gc
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from data_prep.errors import VideoError
from data_prep.media import decoding, video
from data_prep.media.decoding import Decoding
from data_prep.media.video import Video
from tests.made_clips import (
    number_of,
    picture,
    real_clip,
    times,
    with_edits,
    write_audio_mp4,
    write_lively_mp4,
    write_mp4,
)


def shown(path: Path, fps: str = "1") -> tuple[dict[int, int], str | None]:
    """Return the number that the picture of each sample tells, by sample, and what was damaged."""
    with Video(path) as clip:
        samples = [(sample, number_of(image)) for sample, image in clip.samples(Fraction(fps))]
        assert samples == sorted(set(samples))
        return dict(samples), clip.reason


def numbers(path: Path, fps: str = "1") -> tuple[list[int], str | None]:
    """Return the number that each sample's picture tells, no sample being left out, and what was damaged."""
    samples, reason = shown(path, fps)
    assert list(samples) == list(range(len(samples)))
    return list(samples.values()), reason


@pytest.mark.parametrize("start", [0, 1, 10])
def test_time_counts_from_the_first_frame(tmp_path: Path, start: int) -> None:
    path = write_mp4(tmp_path / "clip.mp4", times(35, 10, start))
    assert numbers(path) == ([0, 10, 20, 30], None)


def test_frames_before_an_edit_list_are_not_shown(tmp_path: Path) -> None:
    """Frames -0.33 to -0.03 of this clip lie before its edit list: a player starts with the fifth."""
    options = {"avoid_negative_ts": "disabled"}
    path = write_mp4(tmp_path / "clip.mp4", times(35, 10, Fraction(-33, 100)), container_options=options)
    assert numbers(path) == ([4, 14, 24, 34], None)


def test_clip_shorter_than_a_second_gives_one_frame(tmp_path: Path) -> None:
    assert numbers(write_mp4(tmp_path / "clip.mp4", times(3, 10))) == ([0], None)


def test_other_rates_and_uneven_times(tmp_path: Path) -> None:
    uneven = [Fraction(second) for second in ("0", "0.3", "0.9", "1.1", "1.2", "3.7", "4.0", "4.1")]
    path = write_mp4(tmp_path / "uneven.mp4", uneven)
    assert shown(path) == ({0: 0, 1: 3, 3: 5, 4: 6}, None)
    assert shown(path, "2") == ({0: 0, 1: 2, 2: 3, 7: 5, 8: 6}, None)
    assert shown(path, "0.25") == ({0: 0, 1: 6}, None)


def test_fragments_whose_header_counts_no_frames(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = write_mp4(tmp_path / "clip.mp4", times(35, 10), container_options=options)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
    assert numbers(path) == ([0, 10, 20, 30], None)


def cut(path: Path, end: Callable[[int], int]) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: end(len(content))])
    return path


def test_truncated_clip_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "clip.mp4", times(100, 10), container_options={"movflags": "faststart"})
    found, reason = numbers(cut(path, lambda size: size * 7 // 10))
    assert found == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90][: len(found)]
    assert 2 <= len(found) < 10
    assert reason is not None
    assert "packets beyond the file's end" in reason


def test_clip_cut_between_two_packets_is_known_to_be_cut(tmp_path: Path) -> None:
    """No packet is torn here and no error is met; only the index knows that more was there."""
    path = write_mp4(tmp_path / "clip.mp4", times(50, 10), container_options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        starts = sorted(entry.pos for entry in container.streams.video[0].index_entries)
    found, reason = numbers(cut(path, lambda _: starts[30]))
    assert found == [0, 10, 20]
    assert reason == "packets beyond the file's end: 20"


def test_damage_in_the_middle_costs_only_what_it_hits(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "clip.mp4", times(100, 10))
    with av.open(str(path)) as container:
        entry = container.streams.video[0].index_entries[40]  # a keyframe
        position, size = entry.pos, entry.size
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    found, reason = numbers(path)
    assert found[:4] + found[5:] == [0, 10, 20, 30, 50, 60, 70, 80, 90]
    assert reason is not None


def test_what_cannot_be_read_further_keeps_what_was_read(tmp_path: Path) -> None:
    """A packet of the fifth fragment is said to be two gigabytes long; the 39 before it can be read."""
    path = write_mp4(tmp_path / "clip.mp4", times(60, 10), container_options={"movflags": "frag_keyframe+empty_moov"})
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0)]
    content = path.read_bytes()
    fragment = [found.start() for found in re.finditer(b"trun", content)][4]
    size = content.index(struct.pack(">I", sizes[40]), fragment)
    path.write_bytes(content[:size] + b"\x7f\xff\xff\xff" + content[size + 4 :])
    found, reason = numbers(path, "10")
    assert found == list(range(39))  # those that the decoder still held are not lost
    assert reason is not None
    assert "unreadable rest: 1" in reason


def test_clip_cut_in_a_fragments_header_gives_what_is_before(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = write_mp4(tmp_path / "clip.mp4", times(60, 10), container_options=options)
    content = path.read_bytes()
    sound = numbers(path)
    last = content.rindex(b"moof") - 4
    path.write_bytes(content[:last])
    before = numbers(path)
    assert sound == ([0, 10, 20, 30, 40, 50], None)
    assert 3 <= len(before[0]) <= 6
    path.write_bytes(content[: last + 40])
    assert numbers(path) == (before[0], "bytes of a torn fragment at the end: 40")


def test_pause_that_the_container_states_is_no_damage(tmp_path: Path) -> None:
    """One second, seven of nothing, the rest; the clip's first frame bears 0.2 s, for frames are reordered."""
    path = with_edits(write_mp4(tmp_path / "clip.mp4", times(40, 10)), [(1000, 3200), (7000, -1), (3000, 3200 + 16000)])
    with Video(path) as clip:
        assert {sample: number_of(image) for sample, image in clip.samples(Fraction(1))} == {0: 0, 8: 10, 9: 20, 10: 30}
        assert clip.reason is None


def test_metadata_that_is_not_text_does_no_harm(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "clip.mp4", times(30, 10))
    content = path.read_bytes()
    assert b"Lavf" in content
    path.write_bytes(content.replace(b"Lavf", b"\xff\xf0\xf0\xf0"))
    assert numbers(path) == ([0, 10, 20], None)


def png(path: Path) -> Path:
    Image.new("RGB", (64, 48)).save(path, format="PNG")
    return path


def playlist(path: Path) -> Path:
    path.write_text("#EXTM3U\n#EXTINF:1,\nclip.ts\n#EXT-X-ENDLIST\n")
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def program_stream(path: Path) -> Path:
    """Write an MPEG program stream behind a recorder's header of 40 bytes."""
    write_mpeg = path.with_suffix(".mpg")
    with av.open(str(write_mpeg), "w", format="vob") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(b"IMKH" + bytes(36) + write_mpeg.read_bytes())
    return path


def without_index(path: Path) -> Path:
    return cut(write_mp4(path, times(20, 10)), lambda size: size // 2)


def unknown_codec(path: Path) -> Path:
    content = write_mp4(path, times(3, 10)).read_bytes()
    entry = content.index(b"avc1", content.index(b"stsd"))
    path.write_bytes(content[:entry] + b"zzzz" + content[entry + 4 :])
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (png, "a PNG picture, no mp4"),
        (playlist, "a playlist, no mp4"),
        (empty, "an empty file, no mp4"),
        (
            program_stream,
            "an MPEG program stream behind a recorder's header of 40 bytes .* -skip_initial_bytes 40 -i IN",
        ),
        (without_index, "an mp4 that is cut off, .* without its index"),
        (write_audio_mp4, "holds no video"),
        (unknown_codec, "holds video in an unknown codec .'zzzz'."),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    with pytest.raises(VideoError, match=reason) as error:
        Video(make(tmp_path / "clip.mp4"))
    assert str(tmp_path) not in str(error.value)


def test_container_facts(tmp_path: Path) -> None:
    with Video(write_mp4(tmp_path / "clip.mp4", times(20, 10))) as clip:
        assert clip.duration_seconds == pytest.approx(2.0, abs=0.1)
        assert clip.rate == pytest.approx(10, rel=0.05)


# Frames by what the container and its frames' times say (last time minus first, rounded down, plus one), the size of
# the upright picture, and whether anything in it is damaged.
ODD = [
    ("decord_corrupted.mp4", 5, (1280, 720), True),  # 10 fps, times 0 to 4.9, one packet torn
    ("dvrscan_traffic_camera_vfr.mp4", 35, (1280, 720), False),  # uneven times, 0 to 34.48
    ("mp4parse_h264_white_frame_sar_16_9.mp4", 1, (1138, 480), False),
    ("mp4parse_hevc_white_frame.mp4", 1, (640, 480), False),
    ("mp4parse_minimal.mp4", 1, (320, 240), False),
    ("mp4parse_no_timescale.mp4", 7, (320, 240), True),  # times 0.066 to 6.076, a cut-up recording
    ("mp4parse_tiny_av1.mp4", 1, (64, 64), False),
    ("mp4parse_video_rotation_90.mp4", 1, (60, 100), False),
    ("mp4parse_white.mp4", 10, (320, 240), False),  # 300 frames at 30 fps
    ("torchcodec_bt709_full_range.mp4", 1, (1280, 720), False),
    ("torchcodec_h264_10bits.mp4", 1, (200, 200), False),
    ("torchcodec_h265_10bits.mp4", 1, (200, 200), False),
    ("torchcodec_h265_video.mp4", 1, (128, 128), False),
    ("torchcodec_nasa_13013.mp4", 13, (480, 270), False),  # two video streams; the larger one is the video
]


@pytest.mark.parametrize(("name", "frames", "size", "damaged"), ODD)
def test_odd_real_clips(name: str, frames: int, size: tuple[int, int], damaged: bool) -> None:
    with Video(real_clip(f"odd/{name}")) as clip:
        assert [image.size for _, image in clip.samples(Fraction(1))] == [size] * frames
        assert (clip.reason is not None) == damaged


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mp4parse_invalid_userdata.mp4", "packets beyond the file's end: 5544"),  # the header alone
        ("mp4parse_test_case_1185230.mp4", "undecodable packets"),
        ("mp4parse_zero_empty_stsc.mp4", "packets beyond the file's end"),
    ],
)
def test_odd_real_clips_without_a_frame(name: str, reason: str) -> None:
    with Video(real_clip(f"odd/{name}")) as clip:
        assert list(clip.samples(Fraction(1))) == []
        assert clip.reason is not None
        assert reason in clip.reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mp4parse_chunk_out_of_range.mp4", r"not a readable mp4 .*its index \(moov\) is damaged"),
        ("mp4parse_short-cenc.mp4", "holds encrypted video"),
        ("torchcodec_av1_video.mkv", "a Matroska .* ffmpeg -f matroska -i IN.mp4 -an -c copy OUT.mp4"),
    ],
)
def test_odd_real_clips_that_cannot_be_opened(name: str, reason: str) -> None:
    with pytest.raises(VideoError, match=reason):
        Video(real_clip(f"odd/{name}"))


@pytest.mark.parametrize("reader", [video.picture_reader, lambda *_: None])
def test_clips_too_large_to_keep_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Any) -> None:
    path = write_lively_mp4(tmp_path / "clip.mp4", {"x264-params": "keyint=24:scenecut=0", "crf": "30"})
    monkeypatch.setattr(video, "picture_reader", reader)
    expected = every_sample(path, "1")
    assert len(expected[0]) == 4
    monkeypatch.setattr(video, "MAX_KEPT_BYTES", path.stat().st_size // 2)
    assert every_sample(path, "1") == expected


def test_packets_that_do_not_come_again_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mp4(tmp_path / "clip.mp4", times(35, 10))
    monkeypatch.setattr(video, "MAX_KEPT_BYTES", 1)
    monkeypatch.setattr(Video, "_start_anew", lambda clip: None)  # so the file is read to its end already
    found, reason = shown(path)
    assert found == {}
    assert reason is not None
    assert "packets that came the first time and not again" in reason


def frames_alive() -> int:
    return sum(type(each) is av.VideoFrame for each in gc.get_objects())


def test_no_frame_outlives_its_turn(tmp_path: Path) -> None:
    """Beside those that the process kept before: another test's error may hold the frames of its traceback."""
    path = write_mp4(tmp_path / "clip.mp4", times(120, 5))
    gc.collect()
    gc.disable()
    try:
        before = frames_alive()
        with Video(path) as clip:
            alive = [frames_alive() - before for _ in clip.samples(Fraction(1))]
    finally:
        gc.enable()
    assert len(alive) == 24
    assert max(alive) <= 8


X264 = {
    "short groups": "keyint=12:min-keyint=12:scenecut=0",
    "one group": "keyint=250",
    "pyramid": "keyint=48:bframes=7:b-pyramid=normal:b-adapt=0:ref=6",
    "no B-frames": "keyint=24:bframes=0",
    "open groups": "keyint=20:open-gop=1:bframes=4:b-adapt=0",
    "intra refresh": "keyint=24:intra-refresh=1",
    "interlaced": "keyint=24:interlaced=1",
    "many slices": "keyint=24:slices=5",
    "samples all of it": "keyint=60",
}


def every_sample(path: Path, fps: str) -> tuple[list[tuple[int, bytes]], str | None]:
    with Video(path) as clip:
        return [(sample, image.convert("RGB").tobytes()) for sample, image in clip.samples(Fraction(fps))], clip.reason


@pytest.mark.parametrize("name", X264)
def test_samples_are_those_of_a_full_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = write_lively_mp4(tmp_path / "clip.mp4", {"x264-params": X264[name], "crf": "30", "preset": "veryfast"})
    for fps in ("24", "7") if name == "samples all of it" else ("1", "2.5", "0.4"):
        few = every_sample(path, fps)
        with monkeypatch.context() as patched:
            patched.setattr(video, "picture_reader", lambda *_: None)
            assert few == every_sample(path, fps)
        assert few[1] is None


@pytest.mark.parametrize(
    ("options", "most"),
    [
        # 90 frames at 24 a second: samples are frames 0, 24, 48 and 72, each a group's first or its middle
        ("keyint=24:min-keyint=24:scenecut=0:bframes=3:b-adapt=0", 4),
        ("keyint=48:min-keyint=48:scenecut=0:bframes=0", 2 * (1 + 25)),
        ("keyint=48:min-keyint=48:scenecut=0:bframes=3:b-adapt=0:b-pyramid=none", 2 * (1 + 7)),
    ],
)
def test_frames_that_no_sample_needs_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, most: int
) -> None:
    path = write_lively_mp4(tmp_path / "clip.mp4", {"x264-params": options, "crf": "30"})
    decoded, decode = [], Decoding._decode

    def counted(each: Decoding, packet: object) -> list[object]:
        frames = decode(each, packet)
        decoded.extend(frames)
        return frames

    monkeypatch.setattr(Decoding, "_decode", counted)
    assert len(every_sample(path, "1")[0]) == 4
    assert 4 <= len(decoded) <= most


def test_damaged_clip_is_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage in the third second: what comes is what a decoder that sees every packet makes of it."""
    path = write_lively_mp4(tmp_path / "clip.mp4", {"x264-params": "keyint=24:scenecut=0", "crf": "30"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        keys = [packet for packet in packets if packet.is_keyframe]
        position, size = keys[2].pos, keys[2].size
    content[position + size // 2 : position + size - 20] = bytes(size - 20 - size // 2)
    path.write_bytes(content)
    few = every_sample(path, "1")
    monkeypatch.setattr(video, "picture_reader", lambda *_: None)
    assert few[0] == every_sample(path, "1")[0]
    assert few[1] is not None


def test_groups_too_large_to_hold_are_decoded_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lively_mp4(tmp_path / "clip.mp4", {"x264-params": "keyint=48:scenecut=0", "crf": "30"})
    expected = [every_sample(path, fps) for fps in ("1", "2")]
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "MAX_HELD_BYTES", 5_000)
        assert every_sample(path, "1") == expected[0]
    monkeypatch.setattr(decoding, "MAX_HELD_SAMPLES", 1)
    assert every_sample(path, "2") == expected[1]
