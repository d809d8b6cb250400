"""The demo's clips: the published layout, what each class shows, and runs that keep what is finished."""

import io
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_prep import make_demo_clips
from data_prep.clips.archive import DATASET_FOLDER
from data_prep.demo.clips import COPIES, PlannedClip, encode_clip, plan_clips, scene_of, with_copies
from data_prep.demo.record import RECORD_FILE
from data_prep.demo.renderer import Renderer
from data_prep.errors import InputError
from data_prep.files import sha256_of_file
from data_prep.labels import SOURCE_CLASSES
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


@pytest.fixture
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of a fifth of a second: what these tests look at doesn't depend on the length."""
    monkeypatch.setattr("data_prep.demo.clips.MIN_SECONDS", 0.2)
    monkeypatch.setattr("data_prep.demo.clips.MAX_SECONDS", 0.25)


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


@pytest.mark.parametrize(
    ("split", "count", "unsafe", "fewest_of_a_class"),
    [("train", 120, 96, 6), ("test", 60, 30, 7), ("train", 8, 4, 1), ("test", 9, 4, 1), ("train", 60, 48, 3)],
)
def test_plan_shares_clips_by_the_prior(split: str, count: int, unsafe: int, fewest_of_a_class: int) -> None:
    plan = plan_clips(split, count)
    per_class = Counter(clip.source_class.digit for clip in plan)
    assert len({clip.path for clip in plan}) == len(plan) == count
    assert sum(clip.source_class.label == "UNSAFE" for clip in plan) == unsafe
    assert (sorted(per_class), min(per_class.values())) == (list(range(8)), fewest_of_a_class)


def test_clip_is_three_to_eight_seconds_of_h264() -> None:
    content = encode_clip(PlannedClip("test", SOURCE_CLASSES[5], 1), seed=0)
    with av.open(io.BytesIO(content), format="mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, stream.average_rate) == ("h264", 640, 360, 24)
        assert 3 * 24 <= sum(1 for _ in container.decode(stream)) <= 8 * 24


def test_seed_split_class_and_number_decide_the_bytes(short_clips: None) -> None:
    def clip(split: str = "train", digit: int = 3, number: int = 1, seed: int = 0) -> bytes:
        return encode_clip(PlannedClip(split, SOURCE_CLASSES[digit], number), seed)

    assert clip() == clip()
    assert len({clip(), clip(split="test"), clip(digit=7), clip(number=2), clip(seed=1)}) == 5


def test_frames_survive_the_encoder(short_clips: None) -> None:
    """What is decoded is what was drawn, but for the compression."""
    clip = PlannedClip("train", SOURCE_CLASSES[3], 1)
    scene, _ = scene_of(clip, seed=0)
    with av.open(io.BytesIO(encode_clip(clip, seed=0)), format="mp4") as container:
        decoded = next(container.decode(video=0)).to_image()
    assert np.abs(_floats(decoded) - _floats(Renderer(scene).frame(0))).mean() < 4


def _floats(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


def default_plan() -> list[PlannedClip]:
    return with_copies(plan_clips("train", 120) + plan_clips("test", 60))


def test_copies_stand_where_the_published_ones_do() -> None:
    """Across classes within a split and across splits, and under both labels, of which one is in test."""
    copies = [clip for clip in default_plan() if clip.copy_of]
    assert len(copies) == len(COPIES) == 4
    pairs = [(copy, copy.copy_of) for copy in copies if copy.copy_of]
    assert all(copy.source_class != source.source_class and source.copy_of is None for copy, source in pairs)
    across_splits = [copy for copy, source in pairs if copy.split != source.split]
    contradictory = [copy for copy, source in pairs if copy.source_class.label != source.source_class.label]
    assert [len(across_splits), len(contradictory)] == [2, 2]
    assert [copy.split for copy in contradictory].count("test") == 1


@pytest.mark.parametrize("seed", range(5))
def test_copied_scene_shows_what_both_folders_say(seed: int) -> None:
    for clip in default_plan():
        if clip.copy_of:
            scene, _ = scene_of(clip, seed)
            assert (scene, clip.source_class.digit) == (scene_of(clip.copy_of, seed)[0], 2)
            assert scene.panel_open and scene.person is not None


def test_copies_are_equal_to_the_byte(short_clips: None) -> None:
    for clip in default_plan():
        if clip.copy_of:
            assert encode_clip(clip, seed=0) == encode_clip(clip.copy_of, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_few_first_seconds_do_not_show_the_behaviour_yet(seed: int) -> None:
    """At most 3 % of the frames at one a second, of about 5.9 a clip; each late clip hides its first alone."""
    for split, clips in (("train", 120), ("test", 60)):
        scenes = [scene_of(clip, seed)[0] for clip in default_plan() if clip.split == split]
        assert all(0 <= scene.behaviour_from_seconds < 1 for scene in scenes)
        late = sum(scene.behaviour_from_seconds > 0 for scene in scenes)
        assert late / (5.9 * clips) <= 0.03


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
    monkeypatch.setattr(make_demo_clips, "_generator", lambda: "another")
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
