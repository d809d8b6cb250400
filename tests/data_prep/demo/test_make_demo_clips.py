"""The demo's clips are written in the published layout, by runs that keep what is finished."""

import json
from pathlib import Path

import pytest

from data_prep import make_demo_clips
from data_prep.clips.archive import DATASET_FOLDER
from data_prep.demo.clips import COPIES, PlannedClip, encode_clip, plan_clips, scene_of, with_copies
from data_prep.demo.record import RECORD_FILE
from data_prep.errors import InputError
from data_prep.files import sha256_of_file
from data_prep.make_demo_clips import main

PUBLISHED_FOLDERS = [
    "0_safe_walkway_violation",
    "1_unauthorized_intervention",
    "2_opened_panel cover",
    "3_carrying_overload_with_forklift",
    "4_safe_walkway",
    "5_authorized_intervention",
    "6_closed_panel_cover",
    "7_safe_carrying",
]


def make(out: Path, *flags: str) -> int:
    return main(["--out", str(out), "--train-clips", "8", "--test-clips", "8", "--workers", "1", *flags])


def clips_of(out: Path) -> dict[str, str]:
    root = out / DATASET_FOLDER
    return {path.relative_to(root).as_posix(): sha256_of_file(path) for path in root.rglob("*") if path.is_file()}


def test_layout_is_the_published_one(tmp_path: Path, short_clips: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path) == 0
    expected = [
        f"{split}/{folder}/{folder[0]}_{split[:2]}1.mp4" for split in ("test", "train") for folder in PUBLISHED_FOLDERS
    ]
    assert sorted(clips_of(tmp_path)) == expected
    assert "8 train (4 UNSAFE, 4 SAFE), 8 test (4 UNSAFE, 4 SAFE); drawn 16, kept 0" in capsys.readouterr().out


def test_record_marks_hidden_samples_and_copies(tmp_path: Path, short_clips: None) -> None:
    main(["--out", str(tmp_path), "--train-clips", "60", "--test-clips", "24", "--workers", "1"])
    record = json.loads((tmp_path / RECORD_FILE).read_text())["clips"]
    plan = with_copies(plan_clips("train", 60) + plan_clips("test", 24))
    assert set(record) == {clip.path for clip in plan}
    assert {path: entry["copy_of"] for path, entry in record.items() if entry["copy_of"]} == COPIES
    for copy, source in COPIES.items():
        assert {**record[copy], "copy_of": None} == record[source]
    late = {clip.path for clip in plan if scene_of(clip, 0)[0].behaviour_from_seconds > 0}
    assert late and {path for path, entry in record.items() if entry["hidden_samples"]} == late
    assert record["train/2_opened_panel cover/2_tr1.mp4"]["hidden_samples"] == 0


def test_second_run_keeps_everything(
    tmp_path: Path, short_clips: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    first = clips_of(tmp_path)
    monkeypatch.setattr(make_demo_clips, "encode_clip", lambda clip, seed: b"drawn again")
    make(tmp_path)
    assert clips_of(tmp_path) == first
    assert "drawn 0, kept 16" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_missing_or_changed_clip_is_drawn_again(
    tmp_path: Path, short_clips: None, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    make(tmp_path)
    first = clips_of(tmp_path)
    clip = tmp_path / DATASET_FOLDER / "train/2_opened_panel cover/2_tr1.mp4"
    clip.unlink() if damage == "missing" else clip.write_bytes(clip.read_bytes()[:-1])
    make(tmp_path)
    assert clips_of(tmp_path) == first
    assert "drawn 1, kept 15" in capsys.readouterr().out


def test_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, short_clips: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_test_split(clip: PlannedClip, seed: int) -> bytes:
        if clip.split == "test":
            raise KeyboardInterrupt
        return encode_clip(clip, seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make_demo_clips, "encode_clip", stop_at_test_split)
        make(tmp_path)
    half = clips_of(tmp_path)
    leftover = tmp_path / DATASET_FOLDER / "test/4_safe_walkway/.4_te1.mp4.abcdef.tmp"
    leftover.write_bytes(b"what a kill leaves")
    make(tmp_path)
    assert len(half) == 8 and half.items() < clips_of(tmp_path).items()
    assert "drawn 8, kept 8" in capsys.readouterr().out
    assert not leftover.exists()


def test_other_settings_replace_the_set(tmp_path: Path, short_clips: None) -> None:
    make(tmp_path, "--train-clips", "9")
    old = clips_of(tmp_path)
    make(tmp_path, "--seed", "1")
    new = clips_of(tmp_path)
    assert (len(old), len(new)) == (17, 16)
    assert not set(old.values()) & set(new.values())


def test_changed_drawing_code_replaces_the_set(
    tmp_path: Path, short_clips: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.setattr(make_demo_clips, "hash_of_drawing", lambda: "another")
    make(tmp_path)
    assert capsys.readouterr().out.count("drawn 16, kept 0") == 2


def test_data_set_of_somebody_else_is_refused_and_left(tmp_path: Path, short_clips: None) -> None:
    theirs = tmp_path / DATASET_FOLDER / "train/0_safe_walkway_violation/0_tr1.mp4"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"a real clip")
    with pytest.raises(InputError, match=r"0_tr1\.mp4: not drawn by this script \(1 such files\); give another folder"):
        make(tmp_path)
    assert theirs.read_bytes() == b"a real clip"
    assert sorted(path.name for path in tmp_path.iterdir()) == [DATASET_FOLDER]


def test_clip_put_among_the_drawn_ones_is_refused(tmp_path: Path, short_clips: None) -> None:
    make(tmp_path)
    theirs = tmp_path / DATASET_FOLDER / "train/0_safe_walkway_violation/0_tr99.mp4"
    theirs.write_bytes(b"a real clip")
    with pytest.raises(InputError, match=r"0_tr99\.mp4: not drawn"):
        make(tmp_path, "--seed", "1")
    assert len(clips_of(tmp_path)) == 17


def test_litter_among_the_drawn_ones_is_nobody_s(tmp_path: Path, short_clips: None) -> None:
    make(tmp_path)
    root = tmp_path / DATASET_FOLDER
    for folder in (root, root / "train", root / "train/0_safe_walkway_violation"):
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir" / "0_tr1.mp4").touch()
        (folder / "Thumbs.db").touch()
        (folder / "a.mp4:Zone.Identifier").touch()
    make(tmp_path, "--seed", "1")


def test_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text(json.dumps({"clips": []}))
    with pytest.raises(InputError, match="not this script's record"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--train-clips", "7"), "--train-clips 7: at least 8"),
        (("--test-clips", "0"), "--test-clips 0: at least 8"),
        (("--seed", "-1"), "--seed -1: a whole number"),
        (("--seed", str(2**31)), "--seed 2147483648: a whole number from 0 to 2147483647"),
        (("--workers", "0"), "--workers 0: at least 1"),
    ],
)
def test_bad_flags(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path, *flags)
    assert list(tmp_path.iterdir()) == []
