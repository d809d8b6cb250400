import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.clips.archive import DATASET_FOLDER, find_dataset, list_clips
from data_prep.clips.records import natural_key
from data_prep.disk.litter import is_litter
from data_prep.errors import InputError


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
    assert [(source.split, source.source_class.folder) for source in list_clips(root)[0]] == [
        ("test", "4_safe_walkway"),
        ("train", "0_safe_walkway_violation"),
    ]


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
    for level in (".", "train", "train/0_safe_walkway_violation", "test"):
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


def test_natural_key() -> None:
    names = ["2_tr10", "2_tr9", "10_tr1", "2_tr009", "a"]
    assert sorted(names, key=natural_key) == ["2_tr009", "2_tr9", "2_tr10", "10_tr1", "a"]
