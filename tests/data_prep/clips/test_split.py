"""Expected splits are literal: data sets that were split once are to be split so again."""

import hashlib
from dataclasses import replace

from data_prep.clips.records import Clip
from data_prep.clips.split import with_splits
from tests.tiny_data import make_clip


def clip(name: str, camera: str | None = None, day: str | None = None, content: str | None = None) -> Clip:
    found = make_clip("train", 0, name, content)
    return replace(found, path=f"{name}.mp4", camera=camera, day=day, split_from="content")


def splits(clips: list[Clip], way: str = "day") -> dict[str, tuple[str, str]]:
    return {each.video_id: (each.split, each.split_from) for each in with_splits(clips, way)}


DAYS = [clip(f"{camera}{day}", camera, f"2026-05-0{day}") for camera in ("gate", "hall") for day in range(1, 8)]


TESTED = {"gate7", "hall1", "hall3"}
TESTED_BY_CONTENT = {"clip0", "clip10", "clip13", "clip14", "clip6", "clip7"}


def test_days_of_cameras_are_split_as_they_were() -> None:
    found = splits(DAYS)
    assert {name for name, (split, _) in found.items() if split == "test"} == TESTED
    assert {origin for _, origin in found.values()} == {"day"}


def test_contents_are_split_as_they_were() -> None:
    clips = [clip(f"clip{number}") for number in range(20)]
    found = splits(clips)
    assert {name for name, (split, _) in found.items() if split == "test"} == TESTED_BY_CONTENT
    assert {origin for _, origin in found.values()} == {"content"}
    assert splits(DAYS, "content") != splits(DAYS)
    assert {origin for _, origin in splits(DAYS, "content").values()} == {"content"}


def test_clips_of_one_camera_and_day_are_in_one_split() -> None:
    clips = [clip(f"{each.video_id}-{number}", each.camera, each.day) for each in DAYS for number in range(5)]
    found = splits(clips)
    for each in DAYS:
        assert {found[f"{each.video_id}-{number}"] for number in range(5)} == {splits(DAYS)[each.video_id]}


def test_a_day_of_no_known_camera_is_one_too() -> None:
    clips = [clip(f"{day}-{number}", None, f"2026-05-{day:02d}") for day in range(1, 20) for number in range(3)]
    found = splits(clips)
    by_day = [{found[f"{day}-{number}"][0] for number in range(3)} for day in range(1, 20)]
    assert [len(each) for each in by_day] == [1] * 19
    assert {"train"} in by_day and {"test"} in by_day


def test_clips_that_are_added_move_none() -> None:
    later = [clip(f"later{number}", "gate", f"2026-06-{number:02d}") for number in range(1, 29)]
    more = [clip(f"new{number}", "yard", "2026-05-01") for number in range(5)]
    assert splits(DAYS).items() <= splits([*more, *DAYS, *later]).items()
    assert splits(list(reversed(DAYS))) == splits(DAYS)


def test_copies_are_in_the_split_of_the_earliest_day() -> None:
    """Also where a copy is added later, and where its own day would have been in the other split."""
    by_name = {each.video_id: each for each in DAYS}
    for first, later, split in (("hall1", "gate5", "test"), ("gate1", "hall3", "train")):
        copy = replace(clip("copy", by_name[later].camera, by_name[later].day), sha256=by_name[first].sha256)
        found = splits([copy, *DAYS])
        assert found["copy"] == (split, "copy")
        assert splits(DAYS).items() <= found.items()
        undated = replace(clip("undated"), sha256=by_name[first].sha256)
        assert splits([undated, *DAYS])["undated"][0] == split


def test_a_folders_split_stays() -> None:
    clips = [
        replace(clip(f"c{number}", "gate", "2026-05-01"), split="test", split_from="folder") for number in range(9)
    ]
    assert with_splits(clips, "day") == clips


def test_a_clip_that_cannot_be_read_has_a_split_by_its_path() -> None:
    broken = replace(clip("broken"), sha256=None, status="failed", samples=())
    (found,) = with_splits([broken], "day")
    assert found.split_from == "content"


def test_about_a_fifth_is_test() -> None:
    clips = [clip(f"c{number}", content=hashlib.sha256(str(number).encode()).hexdigest()) for number in range(2000)]
    share = sum(each.split == "test" for each in with_splits(clips, "day")) / 2000
    assert 0.17 < share < 0.23
