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
from data_prep.clips import DATASET_FOLDER
from data_prep.demo_scenes import Renderer, Scene, draw_scene
from data_prep.errors import InputError
from data_prep.files import sha256_of_file
from data_prep.labels import SOURCE_CLASSES
from data_prep.make_demo_clips import RECORD_FILE, PlannedClip, encode_clip, main, plan_clips

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
SEEDS = range(12)


@pytest.fixture
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of a fifth of a second: what these tests look at doesn't depend on the length."""
    monkeypatch.setattr(make_demo_clips, "MIN_SECONDS", 0.2)
    monkeypatch.setattr(make_demo_clips, "MAX_SECONDS", 0.25)


def make(out: Path, *flags: str) -> int:
    return main(["--out", str(out), "--train-clips", "8", "--test-clips", "8", "--workers", "1", *flags])


def clips_of(out: Path) -> dict[str, str]:
    root = out / DATASET_FOLDER
    return {path.relative_to(root).as_posix(): sha256_of_file(path) for path in root.rglob("*") if path.is_file()}


def scene(digit: int, seed: int) -> Scene:
    return draw_scene(digit, np.random.default_rng([seed, digit]))


def pixels(digit: int, seed: int) -> np.ndarray:
    return np.asarray(Renderer(scene(digit, seed)).frame(0.5)).astype(int)


def test_layout_is_the_published_one(tmp_path: Path, short_clips: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path) == 0
    expected = [
        f"{split}/{folder}/{folder[0]}_{split[:2]}1.mp4" for split in ("test", "train") for folder in PUBLISHED_FOLDERS
    ]
    assert sorted(clips_of(tmp_path)) == expected
    assert "8 train (4 UNSAFE, 4 SAFE), 8 test (4 UNSAFE, 4 SAFE); drawn 16, kept 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("split", "count", "unsafe", "fewest_of_a_class"),
    [("train", 60, 48, 3), ("test", 16, 8, 2), ("train", 8, 4, 1), ("test", 9, 4, 1), ("train", 120, 96, 6)],
)
def test_plan_shares_clips_by_the_prior(split: str, count: int, unsafe: int, fewest_of_a_class: int) -> None:
    plan = plan_clips(split, count)
    per_class = Counter(clip.source_class.digit for clip in plan)
    assert len({clip.path for clip in plan}) == len(plan) == count
    assert sum(clip.source_class.label == "UNSAFE" for clip in plan) == unsafe
    assert (sorted(per_class), min(per_class.values())) == (list(range(8)), fewest_of_a_class)


def test_clip_is_three_to_five_seconds_of_h264() -> None:
    content = encode_clip(PlannedClip("test", SOURCE_CLASSES[5], 1), seed=0)
    with av.open(io.BytesIO(content), format="mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, stream.average_rate) == ("h264", 640, 360, 24)
        assert 3 * 24 <= sum(1 for _ in container.decode(stream)) <= 5 * 24


def test_seed_split_class_and_number_decide_the_bytes(short_clips: None) -> None:
    def clip(split: str = "train", digit: int = 3, number: int = 1, seed: int = 0) -> bytes:
        return encode_clip(PlannedClip(split, SOURCE_CLASSES[digit], number), seed)

    assert clip() == clip()
    assert len({clip(), clip(split="test"), clip(digit=7), clip(number=2), clip(seed=1)}) == 5


def test_frames_survive_the_encoder(short_clips: None) -> None:
    """What is decoded is what was drawn, but for the compression."""
    drawn = Renderer(draw_scene(3, _after_length_draw([0, 0, 3, 1]))).frame(0)
    content = encode_clip(PlannedClip("train", SOURCE_CLASSES[3], 1), seed=0)
    with av.open(io.BytesIO(content), format="mp4") as container:
        decoded = next(container.decode(video=0)).to_image()
    assert np.abs(_floats(decoded) - _floats(drawn)).mean() < 4


def _after_length_draw(entropy: list[int]) -> np.random.Generator:
    rng = np.random.default_rng(entropy)
    rng.uniform()
    return rng


def _floats(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


@pytest.mark.parametrize("digit", [0, 4])
@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_walker_stays_on_or_off_the_path(digit: int, seconds: float) -> None:
    for seed in SEEDS:
        drawn = scene(digit, seed)
        assert drawn.person is not None
        z = drawn.person.z + drawn.person.z_metres_per_second * seconds
        beside = drawn.person.x + drawn.person.x_metres_per_second * seconds - drawn.camera.path_left(z)
        inside = 0.3 < beside < drawn.camera.path_width - 0.3
        outside = beside < -0.5 or beside > drawn.camera.path_width + 0.5
        assert (inside, outside) == ((True, False) if digit == 4 else (False, True))


@pytest.mark.parametrize("digit", [0, 1, 3, 4, 5, 7])
def test_whoever_acts_is_in_view_all_the_time(digit: int) -> None:
    for seed in SEEDS:
        drawn = scene(digit, seed)
        actor = drawn.person or drawn.forklift
        assert actor is not None
        z_speed = drawn.person.z_metres_per_second if drawn.person else 0.0
        half = 0.3 if drawn.person else 1.75
        for seconds in (0.0, 5.0):
            x, z = actor.x + actor.x_metres_per_second * seconds, actor.z + z_speed * seconds
            for side, height in ((-half, 0.0), (half, 0.0), (0.0, 1.7)):
                u, v = drawn.camera.project(x + side, height, z)
                assert 0 <= u < 640 and 0 <= v < 360


@pytest.mark.parametrize(("digit", "fewest", "most"), [(3, 3, 5), (7, 1, 2)])
def test_forklift_carries_as_many_bins_as_its_class_says(digit: int, fewest: int, most: int) -> None:
    """A bin is seen: its orange covers about as much of the picture as its size and distance say."""
    for seed in SEEDS:
        drawn = scene(digit, seed)
        assert drawn.forklift is not None and drawn.person is None
        assert fewest <= drawn.forklift.bins <= most
        red, green, blue = pixels(digit, seed).transpose(2, 0, 1)
        orange = np.count_nonzero((red > 1.35 * green) & (green > 1.6 * blue) & (red > 100))
        bin_pixels = 0.42 * drawn.camera.pixels_per_metre(drawn.forklift.x, drawn.forklift.z) ** 2
        assert orange / bin_pixels == pytest.approx(drawn.forklift.bins, abs=0.45)


def test_only_an_authorised_worker_wears_lime() -> None:
    """Counted left of the path, whose green and yellow blend to a kind of lime."""
    for seed in SEEDS:
        lime = {}
        for digit in (1, 5):
            red, green, blue = pixels(digit, seed)[:, :380].transpose(2, 0, 1)
            lime[digit] = np.count_nonzero((green > 1.1 * red) & (red > 2 * blue))
        assert lime[1] < 20 and lime[5] > 200


def test_open_panel_is_a_dark_cavity_in_the_upper_left() -> None:
    for seed in SEEDS:
        dark = {digit: np.count_nonzero(pixels(digit, seed)[:180, :320].max(axis=2) < 30) for digit in (2, 6)}
        assert dark[2] > 5000 and dark[6] < 500


def test_panel_says_nothing_about_who_works_at_it() -> None:
    for digit in (1, 5):
        assert {scene(digit, seed).panel_open for seed in SEEDS} == {True, False}


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
        (("--workers", "0"), "--workers 0: at least 1"),
    ],
)
def test_bad_flags(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path, *flags)
    assert list(tmp_path.iterdir()) == []
