import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep import build_jsonl, extract_frames, files
from data_prep.clips.archive import DATASET_FOLDER
from data_prep.clips.jsonl import read_clips, write_clips
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from data_prep.labels import PROMPT
from data_prep.rows import building
from data_prep.rows.jsonl import Row, image_path, read_rows
from tests.made_clips import make_dataset
from tests.tiny_data import make_clip, unversioned, write_data

CLIPS = {
    "train/0_safe_walkway_violation/0_tr10.mp4": 2,
    "train/0_safe_walkway_violation/0_tr9.mp4": 1,
    "train/4_safe_walkway/4_tr1.mp4": 1,
    "test/2_opened_panel cover/2_te1.mp4": 3,
    "test/6_closed_panel_cover/6_te1.mp4": 1,
}


@pytest.fixture(scope="session")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("extracted")
    make_dataset(data, CLIPS)
    assert extract_frames.main(["--data", str(data), "--workers", "1"]) == 0
    return data


@pytest.fixture
def data(extracted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(extracted, tmp_path / "data"))


def build(data: Path) -> int:
    return build_jsonl.main(["--data", str(data)])


def written(data: Path) -> dict[str, bytes]:
    return {name: (data / name).read_bytes() for name in ("train.jsonl", "test.jsonl", "audit.json")}


def test_one_row_a_frame_in_natural_order(data: Path) -> None:
    assert build(data) == 0
    train, test = read_rows(data / "train.jsonl"), read_rows(data / "test.jsonl")
    assert [(row.image, row.response) for row in train] == [
        ("frames/train/unsafe/0_tr9/0000.jpg", "UNSAFE"),
        ("frames/train/unsafe/0_tr10/0000.jpg", "UNSAFE"),
        ("frames/train/unsafe/0_tr10/0001.jpg", "UNSAFE"),
        ("frames/train/safe/4_tr1/0000.jpg", "SAFE"),
    ]
    assert [(row.image, row.response) for row in test] == [
        ("frames/test/unsafe/2_te1/0000.jpg", "UNSAFE"),
        ("frames/test/unsafe/2_te1/0001.jpg", "UNSAFE"),
        ("frames/test/unsafe/2_te1/0002.jpg", "UNSAFE"),
        ("frames/test/safe/6_te1/0000.jpg", "SAFE"),
    ]
    assert {row.prompt for row in train + test} == {PROMPT}
    assert all(image_path(data, row.image, "row").is_file() for row in train + test)


def test_built_again_it_is_the_same(data: Path) -> None:
    build(data)
    first = written(data)
    build(data)
    assert written(data) == first


def test_audit(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(data)
    text = (data / "audit.json").read_text()
    audit = json.loads(text)
    for split in ("train", "test"):
        sha256 = hashlib.sha256((data / f"{split}.jsonl").read_bytes()).hexdigest()
        assert audit["jsonl"][split] == {"rows": 4, "sha256": sha256}
    train = audit["splits"]["train"]
    assert (train["clips"], train["frames"]) == (3, 4)
    assert train["labels"] == {"SAFE": {"clips": 1, "frames": 1}, "UNSAFE": {"clips": 2, "frames": 3}}
    assert train["source_classes"]["0_safe_walkway_violation"] == {"clips": 2, "frames": 3}
    assert train["source_classes"]["2_opened_panel_cover"] == {"clips": 0, "frames": 0}
    assert train["status"] == {"ok": 3, "partial": 0, "failed": 0}
    assert train["faults"] == audit["faults"] == {}
    assert (audit["schema_version"], audit["extracted_by_earlier_version"]) == (4, 0)
    assert audit["identical_clips"] == []
    assert str(data) not in text
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("clips that look alike")  # they are of two greys
    assert [*lines[:3], *lines[4:]] == [
        "train: 3 clips, 4 frames, 1 to 2 a clip, 75.0% of them UNSAFE, 0 partial, 0 failed",
        "test: 2 clips, 4 frames, 1 to 3 a clip, 75.0% of them UNSAFE, 0 partial, 0 failed",
        "identical clips: 0 groups, 0 of them in both splits, 0 under both labels",
        f"clips of a single frame: {len(audit['single_frame_clips'])}, the first {audit['single_frame_clips'][0]}",
        "train.jsonl: every clip",
    ]
    assert audit["damaged"] == audit["test_clips_with_twins"] == audit["left_out_of_train"] == []


@pytest.fixture
def leaking(data: Path) -> Path:
    """The same with a copy of a test clip in train, and one training clip's content under both labels."""
    root = data / DATASET_FOLDER
    make_dataset(data, {"train/4_safe_walkway/4_tr2.mp4": 4})
    (root / "train/2_opened_panel cover").mkdir()
    shutil.copy(root / "train/4_safe_walkway/4_tr2.mp4", root / "train/2_opened_panel cover/2_tr1.mp4")
    shutil.copy(root / "test/6_closed_panel_cover/6_te1.mp4", root / "train/4_safe_walkway/4_tr3.mp4")
    extract_frames.main(["--data", str(data), "--workers", "1"])
    return data


def test_leaks_are_left_out_of_train_aloud(leaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    build(leaking)
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("identical clips: 2 groups, 1 of them in both splits, 1 under both labels") + 1 :][:4] == [
        "  in both splits: where they are learnt from, test figures partly measure memory, not skill",
        "  under both labels: no model can get all of these right",
        "  of the test clips 1 stand in train, too, and 0 under the other label",
        "  of the training clips 1 stand in test, too, and 2 under both labels",
    ]
    assert lines[-4:] == [
        "train.jsonl: 3 clips, 9 frames left out (--keep-leaks keeps them)",
        "  train/2_opened_panel cover/2_tr1.mp4: its content stands under both labels",
        "  train/4_safe_walkway/4_tr2.mp4: its content stands under both labels",
        "  train/4_safe_walkway/4_tr3.mp4: its content stands in test",
    ]
    assert {image_folder(row) for row in read_rows(leaking / "train.jsonl")} == {"0_tr9", "0_tr10", "4_tr1"}
    assert {image_folder(row) for row in read_rows(leaking / "test.jsonl")} == {"2_te1", "6_te1"}
    audit = json.loads((leaking / "audit.json").read_text())
    assert audit["left_out_of_train"] == audit["leaks_in_train"]
    assert audit["jsonl"]["train"]["rows"] == 4
    assert audit["splits"]["train"]["frames"] == 13


def image_folder(row: Row) -> str:
    return Path(row.image).parent.name


def test_leaks_are_kept_where_that_is_asked_for(leaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_jsonl.main(["--data", str(leaking), "--keep-leaks"]) == 0
    assert capsys.readouterr().out.endswith("train.jsonl: every clip, 3 leaks kept\n")
    assert len(read_rows(leaking / "train.jsonl")) == 13
    audit = json.loads((leaking / "audit.json").read_text())
    assert audit["left_out_of_train"] == []
    assert len(audit["leaks_in_train"]) == 3


def test_a_label_that_stood_in_leaks_alone(leaking: Path) -> None:
    without(leaking, "train/0_safe_walkway_violation")
    with pytest.raises(InputError, match=r"one class only, SAFE; .* needed; 3 clips were left out of it as"):
        build(leaking)


def test_a_failed_clip_is_left_out_aloud(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / DATASET_FOLDER / "train/4_safe_walkway/broken.mp4").write_bytes(b"text")
    assert extract_frames.main(["--data", str(data), "--workers", "1", "--skip-bad"]) == 0
    capsys.readouterr()
    assert build(data) == 0
    err = capsys.readouterr().err
    assert err.startswith("left out, because no frame could be had: train/4_safe_walkway/broken.mp4: a text (")
    assert len(read_rows(data / "train.jsonl")) == 4


def test_frames_without_a_record(data: Path) -> None:
    (data / "frames/train/safe/stray").mkdir()
    with pytest.raises(InputError, match=r"frames/train/safe/stray: frames without a record in clips\.jsonl"):
        build(data)


def test_litter_is_no_frame(data: Path) -> None:
    build(data)
    before = written(data)
    for folder in ("frames", "frames/train", "frames/train/safe", "frames/train/safe/4_tr1"):
        for name in ("@eaDir", "lost+found", ".nfs0001"):
            (data / folder / name / "a" / "b").mkdir(parents=True)
        (data / folder / ".DS_Store").touch()
        (data / folder / "Thumbs.db").touch()
    assert build(data) == 0
    assert written(data) == before


def test_a_folder_listed_in_another_unicode_form_is_the_recorded_one(data: Path) -> None:
    """As HFS+ does with every name; here the record is what differs."""
    clips = read_clips(data / "clips.jsonl")
    clip = next(clip for clip in clips if clip.video_id == "4_tr1")
    recorded = replace(clip, video_id="caf\u00e9")
    (data / clip.folder).rename(data / recorded.folder.replace("\u00e9", "e\u0301"))
    with pytest.raises(InputError, match=r"caf\u00e9: not the 1 frames"):  # not: frames without a record
        building.check_frames(data, [recorded, *(each for each in clips if each != clip)])


def test_a_clip_that_could_not_be_read_is_left_out_aloud(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data / DATASET_FOLDER / "train/4_safe_walkway"
    for name in ("gone", "gone too"):
        (folder / f"{name}.mp4").symlink_to("nowhere.mp4")
    assert extract_frames.main(["--data", str(data), "--workers", "1"]) == 1
    capsys.readouterr()
    assert build(data) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(
        "left out, because no frame could be had: train/4_safe_walkway/gone too.mp4: cannot be read (No such file"
    )
    assert "identical clips: 0 groups" in captured.out  # they have no content
    assert len(read_rows(data / "train.jsonl")) == 4


@pytest.mark.parametrize("change", ["missing folder", "missing frame", "extra frame"])
def test_a_record_without_its_frames(data: Path, change: str) -> None:
    folder = data / "frames/train/unsafe/0_tr10"
    if change == "missing folder":
        shutil.rmtree(folder)
    elif change == "missing frame":
        (folder / "0000.jpg").unlink()
    else:
        (folder / "0002.jpg").write_bytes(b"frame")
    with pytest.raises(InputError, match=r"frames/train/unsafe/0_tr10: not the 2 frames that clips\.jsonl records"):
        build(data)


def test_an_interrupted_extraction(data: Path) -> None:
    clips = read_clips(data / "clips.jsonl")
    clips[0] = replace(clips[0], status="pending", samples=())
    write_clips(data / "clips.jsonl", clips)
    with pytest.raises(InputError, match=r"extraction stopped before 1 clips; run data_prep/extract_frames\.py again"):
        build(data)


def test_clips_of_an_earlier_extractor_are_refused(data: Path) -> None:
    build(data)
    before = written(data)
    clips = read_clips(data / "clips.jsonl")
    (data / "clips.jsonl").write_text("".join(f"{unversioned(clip)}\n" for clip in clips))
    message = (
        r"clips\.jsonl: 5 clips were extracted by an earlier version, .* wrong; run data_prep/extract_frames\.py aga"
    )
    with pytest.raises(InputError, match=message):
        build(data)
    assert written(data) == before
    assert extract_frames.main(["--data", str(data), "--workers", "1"]) == 0
    assert build(data) == 0
    assert written(data) == before


def test_rows_of_a_clip_with_gaps_are_of_the_samples_that_there_are(tmp_path: Path) -> None:
    gaps = replace(make_clip("train", 0, "0_tr1"), samples=(0, 3, 15724800))
    clips = [gaps, make_clip("train", 4, "4_tr1"), make_clip("test", 0, "0_te1"), make_clip("test", 4, "4_te1")]
    write_data(tmp_path, clips)
    build(tmp_path)
    assert [row.image for row in read_rows(tmp_path / "train.jsonl")][:3] == [
        "frames/train/unsafe/0_tr1/0000.jpg",
        "frames/train/unsafe/0_tr1/0003.jpg",
        "frames/train/unsafe/0_tr1/15724800.jpg",
    ]
    (tmp_path / gaps.folder / "0003.jpg").rename(tmp_path / gaps.folder / "0001.jpg")
    with pytest.raises(InputError, match=r"0_tr1: not the 3 frames that clips\.jsonl records"):
        build(tmp_path)


def without(data: Path, *folders: str) -> None:
    for folder in folders:
        shutil.rmtree(data / DATASET_FOLDER / folder)
    extract_frames.main(["--data", str(data), "--workers", "1"])


def test_one_class_only(data: Path) -> None:
    without(data, "train/4_safe_walkway")
    with pytest.raises(InputError, match="train holds one class only, UNSAFE; both SAFE and UNSAFE are needed"):
        build(data)


def test_a_split_without_frames(data: Path) -> None:
    without(data, "test/2_opened_panel cover", "test/6_closed_panel_cover")
    with pytest.raises(InputError, match="test: no frames"):
        build(data)


@pytest.mark.parametrize("killed_at", ["train.jsonl", "test.jsonl", "audit.json"])
def test_a_build_killed_half_way_mixes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str) -> None:
    """A new build is stopped before each of its files: old test rows never stand beside new train rows."""
    build(data)
    old = written(data)
    shutil.rmtree(data / DATASET_FOLDER / "test/6_closed_panel_cover")
    make_dataset(data, {"train/4_safe_walkway/4_tr2.mp4": 1})
    extract_frames.main(["--data", str(data), "--workers", "1"])

    class Killed(BaseException):
        pass

    def replace(path: Path, final: Path) -> None:
        if final.name == killed_at:
            raise Killed
        path.replace(final)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", replace)
        with pytest.raises(Killed):
            build(data)
    assert not (data / "audit.json").exists()
    present = {name for name in ("train.jsonl", "test.jsonl") if (data / name).exists()}
    assert present == {"train.jsonl": {"train.jsonl"}, "test.jsonl": {"train.jsonl"}}.get(
        killed_at, {"train.jsonl", "test.jsonl"}
    )
    build(data)
    assert all(written(data)[name] != old[name] for name in old)


def test_no_records_is_one_line_and_fast(tmp_path: Path) -> None:
    command = [sys.executable, str(PROJECT_ROOT / "data_prep" / "build_jsonl.py"), "--data", str(tmp_path)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 5
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"error: {tmp_path}/clips.jsonl: no such file; run data_prep/extract_frames.py first\n")
