from dataclasses import replace
from pathlib import Path

from data_prep.clips.folders import frame_folders, has_all_frames
from tests.data_prep.clips.test_archive import touch
from tests.tiny_data import make_clip

CLIP = make_clip("train", 0, "0_tr1")  # of two frames


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
