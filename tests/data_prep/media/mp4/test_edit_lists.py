import io
import struct
from fractions import Fraction
from pathlib import Path

import pytest

from data_prep.media.mp4.boxes import boxes
from data_prep.media.mp4.edit_lists import MAX_EDITS, EditList, edit_list
from data_prep.media.mp4.opening import open_mp4
from tests.made_clips import number_of, times, with_edits, write_lively_mp4, write_mp4

MOVIE = 1000  # ticks a second of the clips made here


def edits_of(path: Path) -> EditList | None:
    with path.open("rb") as file:
        moov = next(box for box in boxes(file, 0, path.stat().st_size) if box.kind == b"moov")
        return edit_list(file, moov, 1)


def shown(path: Path) -> list[tuple[Fraction, int]]:
    """Return when each frame is shown, in seconds, and the number that its picture tells."""
    opened = open_mp4(path)
    with opened.container:
        base, edits, found = opened.stream.time_base, opened.edits, []
        for frame in opened.container.decode(opened.stream):
            ticks = edits.shown_at(frame.pts) if edits else frame.pts
            if ticks is not None:
                found.append((ticks * base, number_of(frame.to_image())))
        return found


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("cut", [10, 13, 15, 25, 39])
def test_a_stated_pause_shows_nothing_and_each_frame_once(tmp_path: Path, cut: int, version: int) -> None:
    """Edits may part anywhere in a group of pictures; the frames' own times begin at 0.2 s, for they are reordered."""
    path = write_mp4(tmp_path / "clip.mp4", times(40, 10))
    assert edits_of(path) is None
    start, part = 3200, 1600  # the track's ticks, 16,000 a second
    edits = [(100 * cut, start), (7000, -1), (4000 - 100 * cut, start + part * cut)]
    with_edits(path, edits, version)
    expected = [(Fraction(number, 10) + (7 if number >= cut else 0), number) for number in range(40)]
    assert shown(path) == expected


def test_a_pause_at_the_start_alone_is_left_to_ffmpeg(tmp_path: Path) -> None:
    path = with_edits(write_mp4(tmp_path / "clip.mp4", times(40, 10)), [(500, -1), (4000, 3200)])
    assert edits_of(path) is None
    assert shown(path)[0] == (Fraction(1, 2), 0)


def test_what_no_edit_shows_is_left_out(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "clip.mp4", times(40, 10))
    with_edits(path, [(500, -1), (1000, 3200), (2000, -1), (1000, 3200 + 16000 * 2)])
    expected = [*range(10), *range(20, 30)]
    assert [number for _, number in shown(path)] == expected
    assert [float(at) for at, _ in shown(path)] == pytest.approx(
        [0.5 + number / 10 if number < 10 else 1.5 + number / 10 for number in expected]
    )


def test_seconds_of_a_pause_are_told() -> None:
    edits = edits_by_hand([(1000, 0), (700_000, -1), (3000, 1000), (2000, -1), (1000, 4000)])
    assert edits is not None
    assert [edits.shown_at(tick) for tick in (-1, 0, 999, 1000, 3999, 4000, 4999, 5000)] == [
        None, 0, 999, 701_000, 703_999, 706_000, 706_999, None,
    ]  # fmt: skip
    assert edits.paused(960, 701_000) == 700_000
    assert edits.paused(0, 500) == 0
    assert edits.paused(100_000, 200_000) == 100_000
    assert edits.paused(960, 706_000) == 702_000


def edits_by_hand(
    edits: list[tuple[int, int]], *, scale: int = 1000, version: int = 0, count: int | None = None
) -> EditList | None:
    form = ">IiI" if version == 0 else ">QqI"
    entries = b"".join(struct.pack(form, duration, media, 1 << 16) for duration, media in edits)
    elst = bytes([version, 0, 0, 0]) + struct.pack(">I", len(edits) if count is None else count) + entries

    def box(kind: bytes, *content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)

    trak = box(
        b"trak",
        box(b"tkhd", bytes(12), struct.pack(">I", 1), bytes(60)),
        box(b"edts", box(b"elst", elst)),
        box(b"mdia", box(b"mdhd", bytes(12), struct.pack(">I", scale), bytes(8))),
    )
    content = box(b"moov", box(b"mvhd", bytes(12), struct.pack(">I", MOVIE), bytes(80)), trak)
    file = io.BytesIO(content)
    return edit_list(file, next(boxes(file, 0, len(content))), 1)


def test_times_stay_on_their_side_of_whole_ticks() -> None:
    """A thousandth of a second is 12.8 ticks here; the second part begins at tick 12,812.8 + 12.8."""
    edits = edits_by_hand([(1001, 0), (1, -1), (1000, 12813)], scale=12800)
    assert edits is not None
    assert [edits.shown_at(tick) for tick in (12812, 12813, 12814)] == [12812, 12825, 12826]


def test_where_rounding_makes_parts_overlap_a_frame_belongs_to_the_later_one() -> None:
    edits = edits_by_hand([(1001, 0), (5000, -1), (1000, 12800)], scale=12800)
    assert edits is not None
    assert edits.shown_at(12799) == 12799
    assert edits.shown_at(12800) == int(Fraction(6001 * 128, 10))


def test_a_last_part_without_a_length_is_the_rest() -> None:
    edits = edits_by_hand([(1000, 0), (5000, -1), (0, 1000)])
    assert edits is not None
    assert edits.shown_at(10**6) == 10**6 + 5000


@pytest.mark.parametrize(
    ("edits", "options"),
    [
        ([], {}),
        ([(1000, 0)], {}),
        ([(1000, 0), (1000, 1000)], {}),
        ([(500, -1), (1000, 0)], {}),
        ([(1000, 0), (500, -1)], {}),
        ([(1000, -1)], {}),
        ([(1000, 0), (1, -1), (1000, 0)], {"version": 2}),
        ([(1000, 0), (1, -1), (1000, 0)], {"scale": 0}),
        ([(1, 0), (1, -1)] * MAX_EDITS, {}),
    ],
)
def test_lists_without_a_pause_between_parts_are_left_to_ffmpeg(
    edits: list[tuple[int, int]], options: dict[str, int]
) -> None:
    assert edits_by_hand(edits, **options) is None


def test_entries_that_are_missing_are_not_made_up() -> None:
    assert edits_by_hand([(1000, 0), (1, -1), (1000, 0)], count=2**32 - 1) == edits_by_hand(
        [(1000, 0), (1, -1), (1000, 0)]
    )


def test_open_groups_lose_no_frame(tmp_path: Path) -> None:
    """FFmpeg drops up to four frames where a part begins among the first pictures of an open group."""
    options = {"x264-params": "keyint=20:bframes=7:b-adapt=0:b-pyramid=normal:open-gop=1"}
    path = write_lively_mp4(tmp_path / "clip.mp4", options, frames=48)
    with_edits(path, [(1000, 1024), (3000, -1), (1000, 1024 + 12288)])
    opened = open_mp4(path)
    with opened.container:
        assert opened.edits is not None
        ticks = sorted(packet.pts for packet in opened.container.demux(opened.stream) if packet.size)
        found = [opened.edits.shown_at(tick) for tick in ticks]
    assert found == [512 * number + (3 * 12288 if number >= 24 else 0) for number in range(48)]
