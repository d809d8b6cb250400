"""Data sets in folders of their own, from their clips to clips.jsonl."""

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from data_prep import build_jsonl, extract_frames
from data_prep.clips import extraction
from data_prep.clips.jsonl import read_clips
from data_prep.clips.records import Clip
from data_prep.clips.workers import Pool
from data_prep.errors import InputError
from data_prep.rows.jsonl import read_rows
from tests.data_prep.clips.test_extract_frames import Here
from tests.made_clips import times, write_mp4

CLASSES = "blocked_exit: {label: UNSAFE, description: goods before the door}\nclear_exit: SAFE\n"
# By camera, day and class; of these days gate's fifth and hall's first are test, as test_split.py holds.
CLIPS = {
    "gate/2026-05-01/blocked_exit/1.mp4": 1,
    "gate/2026-05-01/clear_exit/1.mp4": 2,
    "gate/2026-05-02/clear exit/2.mp4": 3,
    "hall/2026-05-01/blocked_exit/1.mp4": 4,
    "hall/2026-05-01/clear_exit/night/1.MP4": 5,
    "hall/2026-05-02/Blocked-Exit/2.mp4": 6,
}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_frames, "processes_here", lambda count: nullcontext(Pool(Here, at_once=count)))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the paths of the clips that are decoded from here on."""
    paths: list[str] = []
    original = extraction.extract_clip

    def spy(source: Path, folder: Path, clip: Clip) -> tuple[Path, Clip]:
        paths.append(clip.path)
        return original(source, folder, clip)

    monkeypatch.setattr(extraction, "extract_clip", spy)
    yield paths


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """Return a folder with clips/, classes.yaml and an empty data/."""
    (tmp_path / "data").mkdir()
    (tmp_path / "classes.yaml").write_text(CLASSES)
    for path, number in CLIPS.items():
        write_mp4(tmp_path / "clips" / path, times(1, 1), first_number=number)
    return tmp_path


def extract(plant: Path, *flags: str, classes: bool = True) -> dict[str, Clip]:
    own = ["--classes", str(plant / "classes.yaml")] if classes else []
    places = ["--data", str(plant / "data"), "--dataset", str(plant / "clips")]
    assert extract_frames.main([*places, *own, "--workers", "1", *flags]) == 0
    return {clip.path: clip for clip in read_clips(plant / "data" / "clips.jsonl")}


def test_records_say_class_camera_day_and_split(plant: Path) -> None:
    clips = extract(plant, "--camera-level", "1")
    assert {path: (c.label, c.source_class, c.camera, c.day, c.split, c.split_from) for path, c in clips.items()} == {
        "gate/2026-05-01/blocked_exit/1.mp4": ("UNSAFE", "blocked_exit", "gate", "2026-05-01", "train", "day"),
        "gate/2026-05-01/clear_exit/1.mp4": ("SAFE", "clear_exit", "gate", "2026-05-01", "train", "day"),
        "gate/2026-05-02/clear exit/2.mp4": ("SAFE", "clear_exit", "gate", "2026-05-02", "train", "day"),
        "hall/2026-05-01/blocked_exit/1.mp4": ("UNSAFE", "blocked_exit", "hall", "2026-05-01", "test", "day"),
        "hall/2026-05-01/clear_exit/night/1.MP4": ("SAFE", "clear_exit", "hall", "2026-05-01", "test", "day"),
        "hall/2026-05-02/Blocked-Exit/2.mp4": ("UNSAFE", "blocked_exit", "hall", "2026-05-02", "train", "day"),
    }
    assert {c.description for c in clips.values() if c.label == "UNSAFE"} == {"goods before the door"}
    assert all(c.own_class for c in clips.values())
    assert len({c.video_id for c in clips.values()}) == len(CLIPS), "no two clips share a name, in whatever split"
    for clip in clips.values():
        assert [(plant / "data" / image).is_file() for image in clip.frame_paths] == [True]


def test_rows_and_audit_of_such_a_data_set(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract(plant, "--camera-level", "1")
    capsys.readouterr()
    assert build_jsonl.main(["--data", str(plant / "data")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2:6] == [
        "split without train and test folders: 6 clips by the day of their camera, 1 of 4 such days test; by a hash, "
        "so that clips added later move none but copies of theirs",
        "cameras: 2",
        "  gate: 3 clips, 2 SAFE, 1 UNSAFE; 0 in test",
        "  hall: 3 clips, 1 SAFE, 2 UNSAFE; 2 in test",
    ]
    audit = json.loads((plant / "data" / "audit.json").read_text())
    assert audit["classes"] == {
        "blocked_exit": {"label": "UNSAFE", "description": "goods before the door"},
        "clear_exit": {"label": "SAFE", "description": None},
    }
    assert list(audit["splits"]["train"]["source_classes"]) == ["blocked_exit", "clear_exit"]
    assert {row.response for row in read_rows(plant / "data" / "test.jsonl")} == {"SAFE", "UNSAFE"}


def test_camera_by_a_pattern_and_none_at_all(plant: Path) -> None:
    clips = extract(plant, "--camera-pattern", "(?P<camera>ga)te/")
    assert {c.camera for path, c in clips.items() if path.startswith("gate")} == {"ga"}
    assert {c.camera for path, c in clips.items() if path.startswith("hall")} == {None}
    assert {c.camera for c in extract(plant).values()} == {None}


def test_what_the_path_tells_is_corrected_without_extracting_again(plant: Path, decoded: list[str]) -> None:
    extract(plant, "--camera-level", "1")
    before = len(decoded)
    (plant / "classes.yaml").write_text(CLASSES.replace("goods before the door", "the way out is blocked"))
    clips = extract(plant, "--camera-level", "1")
    assert {c.description for c in clips.values() if c.label == "UNSAFE"} == {"the way out is blocked"}
    assert len(decoded) == before == len(CLIPS)


def test_another_label_or_split_moves_frames_and_removes_the_old_ones(plant: Path, decoded: list[str]) -> None:
    extract(plant, "--camera-level", "1")
    del decoded[:]
    (plant / "classes.yaml").write_text("blocked_exit: SAFE\nclear_exit: UNSAFE\n")
    clips = extract(plant, "--camera-level", "1")
    assert {c.label for c in clips.values() if c.source_class == "blocked_exit"} == {"SAFE"}
    assert sorted(decoded) == sorted(CLIPS)
    standing = {path.parent for path in (plant / "data" / "frames").rglob("*.jpg")}
    assert standing == {plant / "data" / clip.folder for clip in clips.values()}


def test_clips_that_are_added_leave_the_others_where_they_are(plant: Path, decoded: list[str]) -> None:
    before = extract(plant, "--camera-level", "1")
    del decoded[:]
    write_mp4(plant / "clips/yard/2026-05-01/clear_exit/1.mp4", times(1, 1), first_number=9)
    after = extract(plant, "--camera-level", "1")
    assert decoded == ["yard/2026-05-01/clear_exit/1.mp4"]
    assert before.items() <= after.items()


@pytest.mark.parametrize("first", [0, 1, 4])
def test_interrupted_run_goes_on_to_the_same_end(plant: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    whole = extract(plant, "--camera-level", "1")
    shutil.rmtree(plant / "data")
    (plant / "data").mkdir()
    original, done = extraction.extract_clip, list[str]()

    def interrupted(source: Path, folder: Path, clip: Clip) -> tuple[Path, Clip]:
        if len(done) == first:
            raise KeyboardInterrupt
        done.append(clip.path)
        return original(source, folder, clip)

    monkeypatch.setattr(extraction, "extract_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(plant, "--camera-level", "1")
    monkeypatch.setattr(extraction, "extract_clip", original)
    assert extract(plant, "--camera-level", "1") == whole
    assert len(list((plant / "data" / "frames").rglob("*.jpg"))) == len(CLIPS)


def test_split_folders_are_taken_as_they_are(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, folder in (("Train", "gate"), ("test", "hall")):
        (plant / "clips" / split).mkdir()
        (plant / "clips" / folder).rename(plant / "clips" / split / folder)
    write_mp4(plant / "clips" / "more" / "clear_exit" / "1.mp4", times(1, 1))
    clips = extract(plant, "--camera-level", "1")
    assert {(c.split, c.camera, c.split_from) for c in clips.values()} == {
        ("train", "gate", "folder"),
        ("test", "hall", "folder"),
    }
    assert "1 folder beside train and test" in capsys.readouterr().err


def test_split_by_content_needs_no_day(plant: Path) -> None:
    clips = extract(plant, "--split-by", "content")
    assert {c.split_from for c in clips.values()} == {"content"}
    assert {c.split for c in clips.values()} == {"train", "test"}
    assert clips == extract(plant, "--split-by", "content")


def test_too_few_days_for_a_test_split_are_told_of(plant: Path) -> None:
    for path in ("hall/2026-05-01/blocked_exit/1.mp4", "hall/2026-05-01/clear_exit/night/1.MP4"):
        (plant / "clips" / path).unlink()
    extract(plant, "--camera-level", "1")
    with pytest.raises(InputError, match=r"test: no frames; too few days of cameras .* --split-by content"):
        build_jsonl.main(["--data", str(plant / "data")])


def test_unknown_folder_is_told_with_the_line_to_add(plant: Path) -> None:
    write_mp4(plant / "clips/gate/2026-05-03/half_open/3.mp4", times(1, 1))
    with pytest.raises(InputError, match=r"/half_open' is named by no line of classes\.yaml; add one: half_open: "):
        extract(plant)
    assert not (plant / "data" / "clips.jsonl").exists()
    with (plant / "classes.yaml").open("a") as file:
        file.write("half_open: UNSAFE\n")
    assert extract(plant)["gate/2026-05-03/half_open/3.mp4"].source_class == "half_open"


def test_own_folders_without_a_classes_file_are_refused_as_ever(plant: Path) -> None:
    with pytest.raises(InputError, match="no data set found"):
        extract(plant, classes=False)


def test_what_cannot_be(plant: Path) -> None:
    with pytest.raises(InputError, match="--split-by is for a data set of your own"):
        extract(plant, "--split-by", "day", classes=False)
    with pytest.raises(InputError, match=r"no clip's path tells a camera, gate/2026-05-01/blocked_exit/1\.mp4 for one"):
        extract(plant, "--camera-level", "9")
    with pytest.raises(InputError, match="which gets the frames, lies in"):
        extract_frames.main(
            ["--data", str(plant / "data"), "--dataset", str(plant), "--classes", str(plant / "classes.yaml")]
        )
    with pytest.raises(InputError, match="name the folder of your clips with --dataset"):
        extract_frames.main(["--data", str(plant / "data"), "--classes", str(plant / "classes.yaml")])
    write_mp4(plant / "clips/1.mp4", times(1, 1))
    with pytest.raises(InputError, match="clips lie in no folder"):
        extract(plant)
    (plant / "clips/1.mp4").unlink()
    (plant / "clips/train").mkdir()
    with pytest.raises(InputError, match="holds the folder train alone"):
        extract(plant)
    (plant / "clips/test").mkdir()
    with pytest.raises(InputError, match="--split-by has no effect"):
        extract(plant, "--split-by", "day")
    with pytest.raises(InputError, match=r"holds no \.mp4 file in any folder"):
        extract(plant)


def test_links_that_lead_round_end(plant: Path) -> None:
    (plant / "clips" / "gate" / "again").symlink_to(plant / "clips")
    assert set(extract(plant)) == set(CLIPS)
