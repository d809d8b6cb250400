import io
import struct

import pytest

from data_prep.media.mp4.boxes import (
    NO_BOX,
    Box,
    boxes,
    fields_of,
    find_boxes,
    sample_entries,
    ticks_a_second,
    track_box,
    track_numbers,
)


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def walk(content: bytes) -> list[Box]:
    return list(boxes(io.BytesIO(content), 0, len(content)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (box(b"free"), [(b"free", 0, 8, 8)]),
        (box(b"ftyp", b"isom") + box(b"free"), [(b"ftyp", 0, 8, 12), (b"free", 12, 20, 20)]),
        (struct.pack(">I4sQ", 1, b"mdat", 20) + b"abcd" + box(b"free"), [(b"mdat", 0, 16, 20), (b"free", 20, 28, 28)]),
        (box(b"free") + struct.pack(">I4s", 0, b"mdat") + b"abc", [(b"free", 0, 8, 8), (b"mdat", 8, 16, 19)]),
        (box(b"moof", b"abcd")[:10], [(b"moof", 0, 8, 12)]),  # torn: it ends past what there is
        (struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1), [(b"mdat", 0, 16, 2**64 - 1)]),
        (box(b"free") + b"\0\0\0", [(b"free", 0, 8, 8), (NO_BOX, 8, 8, 11)]),
        (struct.pack(">I4s", 7, b"free") + bytes(9), [(NO_BOX, 0, 0, 17)]),
        (struct.pack(">I4s", 1, b"mdat"), [(NO_BOX, 0, 0, 8)]),  # the long size is missing
        (struct.pack(">I4sQ", 1, b"mdat", 15), [(NO_BOX, 0, 0, 16)]),
        (struct.pack(">I4sQ", 1, b"mdat", 0) + box(b"free"), [(NO_BOX, 0, 0, 24)]),
        (bytes(20), [(bytes(4), 0, 8, 20)]),
    ],
)
def test_boxes_of_any_bytes(content: bytes, expected: list[tuple[bytes, int, int, int]]) -> None:
    assert walk(content) == [Box(*each) for each in expected]


def test_endless_boxes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.media.mp4.boxes.MAX_BOXES", 3)
    assert walk(5 * box(b"free"))[2:] == [Box(b"free", 16, 24, 24), Box(NO_BOX, 24, 24, 40)]


class Counted(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.bytes_read += len(content)
        return content


def test_only_headers_are_read() -> None:
    content = box(b"ftyp", b"isom") + box(b"mdat", bytes(10**6)) + box(b"moov")
    file = Counted(content)
    assert [each.kind for each in boxes(file, 0, len(content))] == [b"ftyp", b"mdat", b"moov"]
    assert file.bytes_read <= 3 * 16


def track(number: int, *, version: int = 0, scale: int = 90000, entries: tuple[bytes, ...] = (b"avc1",)) -> bytes:
    times = bytes(16 if version else 8)
    description = box(b"stsd", bytes(4), struct.pack(">I", len(entries)), *(box(entry, bytes(70)) for entry in entries))
    return box(
        b"trak",
        box(b"tkhd", bytes([version, 0, 0, 0]), times, struct.pack(">I", number), bytes(60)),
        box(
            b"mdia",
            box(b"mdhd", bytes([version, 0, 0, 0]), times, struct.pack(">I", scale), bytes(8)),
            box(b"minf", box(b"stbl", description)),
        ),
    )


@pytest.mark.parametrize("version", [0, 1])
def test_fields_of_tracks(version: int) -> None:
    second = track(7, version=version, scale=12800, entries=(b"avc1", b"encv"))
    content = box(b"moov", track(3, version=version), box(b"udta"), second)
    file, moov = io.BytesIO(content), walk(content)[0]
    assert track_numbers(file, moov) == {3, 7}
    assert track_box(file, moov, 4) is None
    found = track_box(file, moov, 7)
    assert found is not None
    assert fields_of(file, found) == second[8:]
    assert ticks_a_second(file, found, "mdia/mdhd") == 12800
    assert ticks_a_second(file, moov, "mvhd") is None
    assert sample_entries(file, found) == [b"avc1", b"encv"]


def test_fields_that_are_cut_off_are_none() -> None:
    content = box(b"moov", box(b"trak", box(b"tkhd", bytes(4))), box(b"mvhd"))
    for end in range(8, len(content) + 1):
        file, moov = io.BytesIO(content[:end]), Box(b"moov", 0, 8, len(content))
        assert track_numbers(file, moov) <= {None}
        assert track_box(file, moov, 1) is None
        assert ticks_a_second(file, moov, "mvhd") is None
        assert sample_entries(file, moov) == []
        assert find_boxes(file, moov, "trak/edts/elst") == []
