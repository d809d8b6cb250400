import contextlib
import io
import os
import random
import struct
from collections import Counter
from pathlib import Path

import av
import pytest

from data_prep.errors import VideoError
from data_prep.media.mp4.boxes import Box, boxes
from data_prep.media.mp4.fragments import Part, PartOfFile, readable_part
from data_prep.media.mp4.opening import open_mp4
from tests.made_clips import times, write_mp4

FLAGS = "frag_keyframe+empty_moov+default_base_moof"


def fragmented(path: Path, flags: str = FLAGS) -> tuple[bytes, list[Box]]:
    """Write a clip of four seconds in fragments of half a second to a second; returns it and its fragments' headers."""
    content = write_mp4(path, times(40, 10), container_options={"movflags": flags}).read_bytes()
    return content, [box for box in boxes(io.BytesIO(content), 0, len(content)) if box.kind == b"moof"]


def packets(path: Path, content: bytes) -> tuple[list[bytes], Counter[str]]:
    """Return the packets that a clip of these bytes gives, and what of it is said to be left out."""
    path.write_bytes(content)
    opened = open_mp4(path)
    with opened.container:
        return [bytes(packet) for packet in opened.container.demux(opened.stream) if packet.size], opened.faults


@pytest.mark.parametrize("flags", [FLAGS, "frag_keyframe", FLAGS + "+dash+global_sidx", "cmaf+frag_keyframe"])
def test_everything_before_a_torn_header_is_kept(tmp_path: Path, flags: str) -> None:
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path, flags)
    last = headers[-1]
    whole, faults = packets(path, content)
    before, _ = packets(path, content[: last.start])
    assert len(whole) == 40
    assert not faults
    assert 0 < len(before) < 40
    for end in range(last.start + 1, last.end):
        found, faults = packets(path, content[:end])
        assert found == before
        assert faults["bytes of a torn fragment at the end"] == end - last.start


def test_torn_frames_keep_those_before_and_say_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path)
    whole, _ = packets(path, content)
    data = next(box for box in boxes(io.BytesIO(content), headers[-1].end, len(content)) if box.kind == b"mdat")
    for end in range(data.body, data.end, 17):
        found, faults = packets(path, content[:end])
        assert found[:-1] == whole[: len(found) - 1]
        assert faults == {"bytes missing at the end": data.end - end}


@pytest.mark.parametrize(
    ("tail", "fault"),
    [
        (bytes(5000), "bytes of zeros after the last fragment"),  # the recorder had claimed the room beforehand
        (random.Random(0).randbytes(5000), "bytes that are no fragment at the end"),
        (struct.pack(">I4s", 500, b"mfra") + bytes(20), "bytes of a torn mfra box at the end"),
        (struct.pack(">I4s", 500, b"free") + bytes(20), "bytes of a torn free box at the end"),
        (struct.pack(">I4sQ", 1, b"moof", 2**60), "bytes of a torn fragment at the end"),
        (b"\0\0\0", "bytes of a torn fragment at the end"),
    ],
)
def test_what_follows_the_last_whole_fragment_is_told(tmp_path: Path, tail: bytes, fault: str) -> None:
    path = tmp_path / "clip.mp4"
    content, _ = fragmented(path, FLAGS + "+skip_trailer")
    whole, faults = packets(path, content)
    assert not faults
    assert packets(path, content + tail) == (whole, {fault: len(tail)})


def test_missing_fragments_that_the_index_names_are_told(tmp_path: Path) -> None:
    """Nothing is torn; that more was there stands in the index at the front alone."""
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path, FLAGS + "+dash+global_sidx+skip_trailer")
    _, faults = packets(path, content[: headers[-2].start])
    assert faults == {"bytes missing at the end": len(content) - headers[-2].start}


DAMAGES = {
    "no inner box": lambda header: bytes(8),
    "inner size": lambda header: b"\xff" + header[1:],
    "zeros from the middle on": lambda header: header[: len(header) // 2] + bytes(len(header) - len(header) // 2),
    "track header renamed": lambda header: header.replace(b"tfhd", b"tfhe"),
    "another track": lambda header: put(header, header.index(b"tfhd") + 8, struct.pack(">I", 9)),
    "frames renamed": lambda header: header.replace(b"trun", b"trum"),
    "a billion frames": lambda header: put(header, header.index(b"trun") + 8, struct.pack(">I", 10**9)),
    "fewer frames": lambda header: put(header, header.index(b"trun") + 8, struct.pack(">I", 1)),
}


def put(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_header_costs_its_fragment(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path)
    damaged, after = headers[2], headers[3]
    whole, _ = packets(path, content)
    before, _ = packets(path, content[: damaged.start])
    until, _ = packets(path, content[: after.start])
    broken = put(content, damaged.body, DAMAGES[damage](content[damaged.body : damaged.end]))
    assert broken != content
    assert packets(path, broken) == (before + whole[len(until) :], {"damaged fragments": 1})


def test_a_fragment_whose_header_lost_its_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path)
    _, faults = packets(path, put(content, headers[2].start + 4, b"mooN"))
    assert faults == {"damaged fragments": 1}


def test_fragments_without_times_after_a_damaged_one_are_left_out(tmp_path: Path) -> None:
    """Their frames would be shown too early, by as much as the damaged one lasted."""
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path)
    before, _ = packets(path, content[: headers[2].start])
    broken = put(content, headers[2].body, bytes(8)).replace(b"tfdt", b"free")
    assert packets(path, broken) == (before, {"bytes from a damaged fragment on": len(content) - headers[2].start})


def test_what_ffmpeg_refuses_for_other_reasons_is_found_by_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path)
    monkeypatch.setattr("data_prep.media.mp4.fragments._is_sound", lambda *_: True)
    for number in range(1, len(headers)):
        before, _ = packets(path, content[: headers[number].start])
        found, faults = packets(path, put(content, content.index(b"tfhd", headers[number].body) + 8, bytes(4)))
        assert found[: len(before)] == before
        assert faults


@pytest.mark.parametrize("end", [0, 1, 8, 50])
def test_without_a_whole_fragment_nothing_can_be_had(tmp_path: Path, end: int) -> None:
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path)
    with pytest.raises(VideoError, match="holds a header and no whole fragment"):
        packets(path, content[: headers[0].start + end])


def test_a_clip_in_one_piece_is_read_whole(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "clip.mp4", times(20, 10))
    content = path.read_bytes()
    for tail in (b"", bytes(3000), b"\0\0\0", random.Random(0).randbytes(100)):
        path.write_bytes(content + tail)
        with path.open("rb") as file:
            assert readable_part(file) == Part(len(content + tail), len(content + tail))


def test_clips_behind_the_first_are_told(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "clip.mp4", times(20, 10))
    content = path.read_bytes()
    assert packets(path, content)[1] == {}
    assert packets(path, 3 * content)[1] == {"further clips behind the first": 2}


def test_a_part_of_a_file_reads_as_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    part = Part(100, 60, (), (8, 20, 50))
    expected = bytearray(range(60))
    for start in part.hidden:
        expected[start + 4 : start + 8] = b"free"
    file = PartOfFile(path, part)
    assert file.read(1000) == expected
    assert file.read(1) == b""
    for start in range(60):
        for size in range(12):
            assert file.seek(start) == start
            assert file.read(size) == expected[start : start + size]
            assert file.tell() == min(start + size, 60)
    assert file.seek(-1, os.SEEK_END) == 59
    assert file.seek(3) + file.seek(2, os.SEEK_CUR) == 8


def test_its_file_is_closed_with_it(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path)
    path.write_bytes(content[: headers[-1].start + 30])
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        opened = open_mp4(path)
        opened.container.close()
        del opened
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_a_path_with_any_letters_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a,b: c,,|d%20\n.mp4"
    content, headers = fragmented(path)
    assert packets(path, content[: headers[-1].start + 30])[1]


def test_damaged_fragments_raise_nothing_else(tmp_path: Path) -> None:
    """A hundred damages at random in headers; the frames before the first damaged fragment come, whatever it is."""
    path = tmp_path / "clip.mp4"
    content, headers = fragmented(path)
    befores = [packets(path, content[: header.start])[0] for header in headers[1:]]
    rng = random.Random(0)
    for _ in range(100):
        number = rng.randrange(1, len(headers))
        broken = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(headers[number].start, headers[number].end)] = rng.choice(
                [0, 1, 255, rng.randrange(256)]
            )
        path.write_bytes(broken)
        opened = open_mp4(path)
        found: list[bytes] = []
        with opened.container, contextlib.suppress(av.FFmpegError):
            found.extend(bytes(packet) for packet in opened.container.demux(opened.stream) if packet.size)
        assert found[: len(befores[number - 1])] == befores[number - 1]
