import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.clips.archive import DATASET_FOLDER, find_dataset, list_clips
from data_prep.clips.folders import frame_folders, has_all_frames
from data_prep.clips.jsonl import read_clips, write_clips
from data_prep.clips.records import Clip, Settings, natural_key
from data_prep.disk.litter import is_litter
from data_prep.errors import InputError
from tests.tiny_data import unversioned

CLIP = Clip(
    video_id="0_tr1",
    split="train",
    label="UNSAFE",
    source_class="0_safe_walkway_violation",
    path="train/0_safe_walkway_violation/0_tr1.mp4",
    sha256="ab" * 32,
    duration_seconds=2.0,
    rate=25.0,
    width=64,
    height=48,
    settings=Settings(fps=1.0, jpeg_quality=90),
    extractor=2,
    samples=(0, 1),
    status="ok",
    faults=(),
    reason=None,
)


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"clip")
    return root


def dataset(root: Path) -> Path:
    return touch(root, "train/0_safe_walkway_violation/0_tr1.mp4", "test/4_safe_walkway/4_te1.mp4")


@pytest.mark.parametrize(
    "place",
    [
        DATASET_FOLDER,
        f"{DATASET_FOLDER}/{DATASET_FOLDER}",
        " safe_and-unsafe  behaviours",
        "archive/unpacked/the data",
        "set/here",
    ],
)
def test_dataset_is_found_however_it_is_nested_and_named(tmp_path: Path, place: str) -> None:
    dataset(tmp_path / place)
    assert find_dataset(tmp_path) == tmp_path / place


def test_split_folders_are_found_in_any_case(tmp_path: Path) -> None:
    root = touch(tmp_path / "set", "Train/0_Safe Walkway-Violation/a.mp4", "TEST_/4_safe_walkway/b.mp4")
    assert find_dataset(tmp_path) == root
    assert [(source.split, source.source_class.digit) for source in list_clips(root)[0]] == [("test", 4), ("train", 0)]


def test_a_named_dataset_is_taken_or_searched(tmp_path: Path) -> None:
    dataset(tmp_path / "one")
    inner = dataset(tmp_path / "two" / "inner")
    assert find_dataset(tmp_path, inner) == inner
    assert find_dataset(tmp_path, tmp_path / "two") == inner


@pytest.mark.parametrize(
    "place", ["demo/set", "frames", ".hidden/set", "__MACOSX/set", "#recycle/set", "$RECYCLE.BIN/set", "a/b/c/too_deep"]
)
def test_search_never_enters(tmp_path: Path, place: str) -> None:
    dataset(tmp_path / place)
    with pytest.raises(InputError, match=r"no data set found.*train,test.*--dataset"):
        find_dataset(tmp_path)


def test_two_datasets_are_both_named(tmp_path: Path) -> None:
    dataset(tmp_path / "first")
    dataset(tmp_path / "inner" / "second")
    with pytest.raises(InputError, match="several data sets found") as error:
        find_dataset(tmp_path)
    assert str(tmp_path / "first") in str(error.value)
    assert str(tmp_path / "inner" / "second") in str(error.value)


def test_train_and_test_of_something_else_are_no_dataset(tmp_path: Path) -> None:
    touch(tmp_path, "other/train/images/a.png", "other/test/images/b.png")
    with pytest.raises(InputError, match="no data set found"):
        find_dataset(tmp_path)


def test_missing_named_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder.*--dataset"):
        find_dataset(tmp_path, tmp_path / "nowhere")


def test_one_split_twice(tmp_path: Path) -> None:
    touch(dataset(tmp_path / "set"), "Train/0_safe_walkway_violation/a.mp4")
    with pytest.raises(InputError, match="holds train twice: 'Train' and 'train'"):
        find_dataset(tmp_path, tmp_path / "set")


def test_clips_are_listed_in_natural_order_and_the_rest_counted(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "train/2_opened_panel cover/2_tr10.mp4",
        "train/2_opened_panel cover/2_tr9.MP4",
        "train/2_opened_panel_cover/2_tr1.mp4",
        "test/4_safe_walkway/4_te1.mp4",
        "test/4_safe_walkway/._4_te1.mp4",
        "test/4_safe_walkway/.hidden.mp4",
        "test/4_safe_walkway/Thumbs.db",
        "test/4_safe_walkway/old.avi",
        "test/4_safe_walkway/older.AVI",
        "test/4_safe_walkway/folder.mp4/inside.mp4",
        "test/stray.mp4",
        "notes.txt",
    )
    os.mkfifo(root / "test/4_safe_walkway/pipe.mp4")
    sources, left = list_clips(root)
    assert [source.path for source in sources] == [
        "test/4_safe_walkway/4_te1.mp4",
        "train/2_opened_panel cover/2_tr9.MP4",
        "train/2_opened_panel cover/2_tr10.mp4",
        "train/2_opened_panel_cover/2_tr1.mp4",
    ]
    assert {source.source_class.folder for source in sources[1:]} == {"2_opened_panel_cover"}
    assert left == {".avi": 1, ".AVI": 1, "folder or special file": 2, ".mp4": 1}


FOLDERS = ("@eaDir", "lost+found", "System Volume Information", ".nfs0001", "$RECYCLE.BIN", "__MACOSX")


@pytest.fixture
def littered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set with folders and files that systems leave on each level, none of which may be looked into."""
    root = dataset(tmp_path / DATASET_FOLDER)
    for level in ("", "train", "train/0_safe_walkway_violation", "test"):
        for name in FOLDERS:
            touch(root, f"{level}/{name}/4_safe_walkway/a.mp4", f"{level}/{name}/b.mp4")
        touch(root, f"{level}/Thumbs.db", f"{level}/.DS_Store", f"{level}/a.mp4:Zone.Identifier")
    touch(root, "train/b.mp4.download/b.mp4", "train/0_safe_walkway_violation/c.mp4.part")
    for method in ("stat", "iterdir"):
        monkeypatch.setattr(Path, method, refusing(getattr(Path, method)))
    return root


def refusing(method: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if any(is_litter(part) for part in path.parts):
            raise PermissionError(13, "Permission denied", str(path))
        return method(path, *arguments, **options)

    return refuse


def test_litter_is_passed_over_unseen_and_unfinished_downloads_are_counted(littered: Path) -> None:
    assert find_dataset(littered.parent) == find_dataset(littered.parent, littered.parent) == littered
    sources, left = list_clips(littered)
    assert [source.path for source in sources] == [
        "test/4_safe_walkway/4_te1.mp4",
        "train/0_safe_walkway_violation/0_tr1.mp4",
    ]
    assert left == {".download": 1, ".part": 1}


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("8_smoking", "none of the eight behaviours"),
        ("4_safe_walkway_violation", "digit 4 does not go with 'safe_walkway_violation'"),
    ],
)
def test_unknown_or_contradictory_class_folder(tmp_path: Path, folder: str, message: str) -> None:
    touch(dataset(tmp_path), f"train/{folder}/a.mp4")
    with pytest.raises(InputError, match=message):
        list_clips(tmp_path)


def test_no_clip_at_all(tmp_path: Path) -> None:
    touch(tmp_path, "train/0_safe_walkway_violation/a.avi", "test/4_safe_walkway/.a.mp4")
    with pytest.raises(InputError, match="no clips found"):
        list_clips(tmp_path)


def test_what_the_listing_tells_of_clips_that_cannot_be_read(tmp_path: Path) -> None:
    folder = dataset(tmp_path) / "test/4_safe_walkway"
    os.close(os.open(os.fsencode(folder) + b"/Fl\xfcgel.mp4", os.O_CREAT))
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    (folder / "round.mp4").symlink_to("round.mp4")
    sources, left = list_clips(tmp_path)
    assert {source.path: source.reason for source in sources} == {
        "test/4_safe_walkway/4_te1.mp4": None,
        "test/4_safe_walkway/Fl\\xfcgel.mp4": "its name is not UTF-8: rename the file",
        "test/4_safe_walkway/gone.mp4": "cannot be read (No such file or directory)",
        "test/4_safe_walkway/round.mp4": "cannot be read (Too many levels of symbolic links)",
        "train/0_safe_walkway_violation/0_tr1.mp4": None,
    }
    assert not left


A = "0_safe_walkway_violation"


def test_natural_key() -> None:
    names = ["2_tr10", "2_tr9", "10_tr1", "2_tr009", "a"]
    assert sorted(names, key=natural_key) == ["2_tr009", "2_tr9", "2_tr10", "10_tr1", "a"]


def test_clips_are_written_in_natural_order_and_read_back(tmp_path: Path) -> None:
    clips = [
        replace(CLIP, video_id=name, path=f"train/{A}/{name}.mp4") for name in ("0_tr10", "0_tr9", "dé 'p\n\"lacé")
    ]
    write_clips(tmp_path / "clips.jsonl", clips)
    first = (tmp_path / "clips.jsonl").read_bytes()
    assert [clip.video_id for clip in read_clips(tmp_path / "clips.jsonl")] == ["0_tr9", "0_tr10", "dé 'p\n\"lacé"]
    write_clips(tmp_path / "clips.jsonl", reversed(clips))
    assert (tmp_path / "clips.jsonl").read_bytes() == first
    assert set(read_clips(tmp_path / "clips.jsonl")) == set(clips)


def test_a_clips_paths() -> None:
    assert CLIP.folder == "frames/train/unsafe/0_tr1"
    assert CLIP.frame_paths == ["frames/train/unsafe/0_tr1/0000.jpg", "frames/train/unsafe/0_tr1/0001.jpg"]
    later = replace(CLIP, samples=(3, 9999, 10000, 15724800))
    assert [Path(path).name for path in later.frame_paths] == ["0003.jpg", "9999.jpg", "10000.jpg", "15724800.jpg"]
    assert (later.frames, later.frame_path(7)) == (4, "frames/train/unsafe/0_tr1/0007.jpg")


def test_has_all_frames(tmp_path: Path) -> None:
    assert not has_all_frames(tmp_path, CLIP)
    touch(tmp_path, f"{CLIP.folder}/0000.jpg")
    assert not has_all_frames(tmp_path, CLIP)
    touch(tmp_path, f"{CLIP.folder}/0001.jpg")
    assert has_all_frames(tmp_path, CLIP)
    touch(tmp_path, f"{CLIP.folder}/0002.jpg")
    assert not has_all_frames(tmp_path, CLIP)


def test_litter_among_frames_does_not_count(tmp_path: Path) -> None:
    touch(tmp_path, f"{CLIP.folder}/0000.jpg", f"{CLIP.folder}/0001.jpg", f"{CLIP.folder}/@eaDir/0000.jpg/a.jpg")
    for name in (".DS_Store", ".nfs0001", "Thumbs.db", "0002.jpg.part"):
        (tmp_path / CLIP.folder / name).touch()
    assert has_all_frames(tmp_path, CLIP)
    (tmp_path / CLIP.folder / "0001.jpg").unlink()
    touch(tmp_path, f"{CLIP.folder}/0001.jpg.part")
    assert not has_all_frames(tmp_path, CLIP)


def test_folders_of_frames(tmp_path: Path) -> None:
    assert frame_folders(tmp_path) == []
    for place in ("@eaDir/train/safe/a", "frames/@eaDir/safe/a", "frames/train/@eaDir/a", "frames/train/safe/@eaDir/a"):
        touch(tmp_path, f"{place}/0000.jpg")
    touch(tmp_path, "frames/.DS_Store", "frames/train/Thumbs.db", "frames/train/safe/.nfs01", "frames/notes.txt")
    touch(tmp_path, "frames/train/safe/b/0000.jpg", "frames/test/unsafe/c/0000.jpg")
    assert frame_folders(tmp_path) == ["frames/test/unsafe/c", "frames/train/safe/b"]


def test_has_all_frames_goes_by_the_samples_numbers(tmp_path: Path) -> None:
    touch(tmp_path, f"{CLIP.folder}/0000.jpg", f"{CLIP.folder}/0002.jpg")
    assert not has_all_frames(tmp_path, CLIP)
    assert has_all_frames(tmp_path, replace(CLIP, samples=(0, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": ".."}, "video_id '..' cannot be a folder's name"),
        ({"video_id": "a/b"}, "cannot be a folder's name"),
        ({"video_id": ""}, "cannot be a folder's name"),
        ({"split": "val"}, "split 'val'"),
        ({"label": "SAFE"}, "does not go with label 'SAFE'"),
        ({"source_class": "0_walkway"}, "source class '0_walkway'"),
        ({"path": "/etc/passwd"}, "not relative"),
        ({"path": "train/../../x.mp4"}, "not relative"),
        ({"sha256": "AB" * 32}, "64 hexadecimal digits"),
        ({"sha256": None}, "status ok does not go without a sha256"),
        ({"sha256": None, "status": "pending", "samples": ()}, "status pending does not go without a sha256"),
        ({"status": "good"}, "status 'good'"),
        ({"samples": ()}, "status ok does not go with 0 frames"),
        ({"status": "failed"}, "status failed does not go with 2 frames"),
        ({"samples": (0, 0)}, "each once and in order"),
        ({"samples": (2, 1)}, "each once and in order"),
        ({"samples": (-1, 0)}, "from 0 on"),
        ({"samples": (0, 1.0)}, "not whole numbers"),
        ({"samples": (False, True)}, "not whole numbers"),
        ({"extractor": 3}, "extractor 3 is outside 1 to 2"),
        ({"extractor": 0}, "extractor 0 is outside"),
        ({"extractor": True}, "extractor True is outside"),
        ({"faults": None}, "extractor 2 does not go with faults None"),
        ({"extractor": 1}, r"extractor 1 does not go with faults \(\)"),
        ({"faults": (("torn", 1),)}, "status ok does not go with 1 kinds of faults"),
        ({"status": "partial"}, "status partial does not go with 0 kinds of faults"),
        ({"status": "partial", "faults": (("torn", 0),)}, "each with how often it was found"),
    ],
)
def test_a_clip_checks_itself(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Clip(**{**asdict(CLIP), "settings": CLIP.settings, **change})


@pytest.mark.parametrize(
    ("fps", "quality"), [(0, 90), (-1, 90), (float("nan"), 90), (float("inf"), 90), (1, 0), (1, 96)]
)
def test_settings_check_themselves(fps: float, quality: int) -> None:
    with pytest.raises(InputError):
        Settings(fps, quality)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-20], r"clips\.jsonl:2: not a whole JSON object"),
        (lambda text: text.replace('"reason"', '"why"'), r"clips\.jsonl:1: a clip's record has exactly the keys"),
        (lambda text: text.replace('"fps": 1.0', '"fps": "1"'), r"clips\.jsonl:1: a value has the wrong type"),
        (lambda text: text.replace('"train"', '"val"'), r"clips\.jsonl:1: split 'val'"),
        (lambda text: text.replace("0_tr2", "0_tr1"), r"clips\.jsonl:2: second record"),
        (lambda text: text + "[]\n", r"clips\.jsonl:3: a clip's record"),
        (lambda text: text.replace('"samples": [0, 1]', '"samples": 2'), r"clips\.jsonl:1: a value has the wrong type"),
        (lambda text: text.replace('"faults": {}', '"faults": []'), r"clips\.jsonl:1: a value has the wrong type"),
        (lambda text: text.replace('"samples": [0, 1]', '"frames": 2'), r"clips\.jsonl:1: a clip's record has exactly"),
        (lambda text: text.replace('"extractor": 2, ', ""), r"clips\.jsonl:1: a clip's record has exactly the keys"),
        (
            lambda text: text.replace('"extractor": 2', '"extractor": 3').replace('"reason"', '"why"'),
            r"clips\.jsonl:1: extractor 3 is a later version's, this one knows up to 2; update the project, or start",
        ),
    ],
)
def test_damaged_records_name_file_and_line(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "clips.jsonl"
    write_clips(path, [CLIP, replace(CLIP, video_id="0_tr2", path=f"train/{A}/0_tr2.mp4")])
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        read_clips(path)


def test_missing_records(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; run data_prep/extract_frames\.py first"):
        read_clips(tmp_path / "clips.jsonl")


def test_samples_and_faults_stand_in_the_record_as_a_list_and_by_their_words(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    faults = (("incomplete packets", 2), ("unreadable rest", 1))
    clip = replace(CLIP, samples=(0, 4, 15724800), status="partial", faults=faults, reason="as told")
    write_clips(path, [clip])
    record = json.loads(path.read_text())
    assert (record["extractor"], record["samples"]) == (2, [0, 4, 15724800])
    assert record["faults"] == {"incomplete packets": 2, "unreadable rest": 1}
    assert "frames" not in record
    assert read_clips(path) == [clip]


def test_a_clip_that_could_not_be_read_has_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    clip = replace(CLIP, sha256=None, samples=(), status="failed", reason="cannot be read (Input/output error)")
    write_clips(path, [clip])
    assert json.loads(path.read_text())["sha256"] is None
    assert read_clips(path) == [clip]


def test_records_without_a_version_are_read_and_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    records = [
        unversioned(CLIP, frames=3),
        unversioned(CLIP, video_id="0_tr2", path=f"train/{A}/0_tr2.mp4", status="partial", reason="torn: 4"),
        unversioned(CLIP, video_id="0_tr3", path=f"train/{A}/0_tr3.mp4", status="failed", reason="no", frames=0),
        unversioned(CLIP, video_id="0_tr4", path=f"train/{A}/0_tr4.mp4", status="pending", frames=0),
    ]
    path.write_text("".join(f"{record}\n" for record in records))
    clips = read_clips(path)
    assert [clip.samples for clip in clips] == [(0, 1, 2), (0, 1), (), ()]
    assert {(clip.extractor, clip.faults) for clip in clips} == {(1, None)}
    assert [clip.is_of_earlier_extractor for clip in clips] == [True, True, True, False]
    write_clips(path, clips)
    assert read_clips(path) == clips
