"""The pure parts of the benchmark of doubtful labels; nothing is trained here."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from benchmarks.bench_doubts import main
from benchmarks.made.late_clips import chosen_clips, encode_late
from benchmarks.measuring.doubt_tables import as_table, ranking_figures, regained, summarise
from benchmarks.measuring.doubtful_labels import (
    clips_on_the_wrong_side,
    contradicted,
    flip,
    frames_flipped,
    link_data,
)
from data_prep.demo.clips import COPIES, encode_clip, plan_clips, scene_of
from data_prep.errors import InputError
from data_prep.labels import TRAIN, UNSAFE
from data_prep.rows.jsonl import read_rows
from data_prep.rows.validation import split_frames
from recipes.metrics.doubt import STATISTICS
from tests.recipes.report.test_doubtful import seen_as
from tests.tiny_data import many_clips, write_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(tmp_path / "demo", many_clips())
    link_data(tmp_path / "demo", tmp_path / "data")
    return tmp_path / "data"


def responses(data: Path) -> dict[str, str]:
    return {row.image: row.response for row in read_rows(data / "train.jsonl")}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_that_share_of_training_s_frames_is_flipped_and_validation_never(data: Path, share: float) -> None:
    before, splits = responses(data), split_frames(data)
    chosen = frames_flipped(data, share, seed=1)
    assert chosen == frames_flipped(data, share, seed=1) != frames_flipped(data, share, seed=2)
    assert len(chosen) == round(share * len(splits[TRAIN])) and chosen < {frame.image for frame in splits[TRAIN]}
    flip(data, chosen)
    after = responses(data)
    assert {image for image in before if before[image] != after[image]} == chosen
    assert [frame.image for frame in split_frames(data)[TRAIN]] == [frame.image for frame in splits[TRAIN]]
    assert responses(data.with_name("demo")) == before, "what it was linked from is as it was"


def test_whole_clips_of_each_label_stand_on_the_wrong_side(data: Path) -> None:
    chosen = clips_on_the_wrong_side(data, 3, seed=0)
    frames = [frame for frame in split_frames(data)[TRAIN] if frame.image in chosen]
    assert Counter({frame.clip: frame.response for frame in frames}.values()) == {"SAFE": 3, "UNSAFE": 3}
    assert len(frames) == 12, "both frames of each"


def test_reviewer_ticks_what_the_drawing_contradicts_and_nothing_else() -> None:
    frames: list[Any] = [
        SimpleNamespace(image="right", response="UNSAFE"),
        SimpleNamespace(image="flipped to SAFE", response="SAFE"),
        SimpleNamespace(image="hidden", response="UNSAFE"),
        SimpleNamespace(image="hidden, flipped to SAFE", response="SAFE"),
        SimpleNamespace(image="flipped to UNSAFE", response="UNSAFE"),
    ]
    flipped = {"flipped to SAFE", "hidden, flipped to SAFE", "flipped to UNSAFE"}
    hidden = {"hidden", "hidden, flipped to SAFE"}
    assert contradicted(frames, flipped, hidden) == {"flipped to SAFE", "hidden", "flipped to UNSAFE"}


def test_half_of_each_unsafe_class_comes_late() -> None:
    late = [clip for clip, _ in chosen_clips(120, seed=0)]
    plan = [clip for clip in plan_clips(TRAIN, 120) if clip.path not in {*COPIES, *COPIES.values()}]
    for digit in range(4):
        whole = [clip for clip in plan if clip.source_class.digit == digit]
        assert sum(clip.source_class.digit == digit for clip in late) == len(whole) // 2
    assert {clip.source_class.label for clip in late} == {UNSAFE}
    assert len({clip.path for clip in late}) == len(late)
    assert late != [clip for clip, _ in chosen_clips(120, seed=1)]


@pytest.mark.parametrize("digit", [1, 2, 3])
def test_late_clip_is_as_long_and_shows_what_it_is_called_from_then_on_alone(tmp_path: Path, digit: int) -> None:
    """Against the clip as the demo draws it: until then something large differs, from then on nothing but noise."""
    clip = next(
        clip
        for clip in plan_clips(TRAIN, 120)
        if clip.source_class.digit == digit and (digit != 1 or not scene_of(clip, 0)[0].panel_open)
    )
    content, from_seconds = encode_late(clip, 0, np.random.default_rng(0))
    assert 2 <= from_seconds <= 4
    late, plain = seconds_of(content, tmp_path), seconds_of(encode_clip(clip, 0), tmp_path)
    assert len(late) == len(plain) > math.ceil(from_seconds)
    different = [float((np.abs(one - other) > 60).mean()) for one, other in zip(late, plain, strict=True)]
    hidden = math.ceil(from_seconds)
    assert min(different[1:hidden]) > 10 * max(different[hidden:]), different


def seconds_of(content: bytes, folder: Path) -> list[np.ndarray]:
    """Return one frame a second of a clip of 24."""
    (folder / "clip.mp4").write_bytes(content)
    with av.open(folder / "clip.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    return frames[::24]


FRAMES: list[Any] = [
    *(SimpleNamespace(image=f"a{n}", clip="a", response="UNSAFE") for n in range(5)),
    *(SimpleNamespace(image=f"b{n}", clip="b", response="SAFE") for n in range(5)),
]


def test_rankings_count_what_is_found() -> None:
    """Of a, one frame is never learned; of b, which is wrong as a whole, all are learned late."""
    log_odds = np.full((10, 2), 4.0)
    log_odds[0], log_odds[5:] = -4.0, (-1.0, 1.0)
    seen = seen_as(log_odds)
    wrong = {"a0", *(f"b{n}" for n in range(5))}
    found = ranking_figures(FRAMES, seen, wrong)
    assert list(found) == list(STATISTICS)
    mean = found["mean margin"]
    assert mean == {"top_fifth": 2 / 6, "top_two_fifths": 4 / 6, "auroc_unsafe": 1.0, "first_clips": 1}
    assert found["spread of P"]["auroc_unsafe"] == 0.5


def run(arm: str, seed: int, macro_f1: float) -> dict[str, Any]:
    figures = {"top_fifth": 0.9, "top_two_fifths": 0.7, "auroc_unsafe": 0.8, "first_clips": 6}
    return {"arm": arm, "seed": seed, "frame_macro_f1": macro_f1, "rankings": dict.fromkeys(STATISTICS, figures)}


def test_what_was_regained_is_of_the_seeds_that_have_all_three_runs() -> None:
    runs = [run("clean", 0, 0.95), run("flipped_20", 0, 0.75), run("flipped_20_reviewed", 0, 0.90)]
    runs += [run("clean", 1, 0.91), run("flipped_20", 1, 0.71)]
    summary = summarise(runs)
    assert summary["regained"] == {
        "flipped_20": {
            "seeds": ["0"],
            "cost": pytest.approx(0.2),
            "regained": pytest.approx(0.15),
            "share": pytest.approx(0.75),
        }
    }
    table = as_table(summary)
    assert "| mean margin | - | 0.70 (0.70, 0.70) | - | - |" in table
    assert "| clean | 0.930 (0.950, 0.910) |" in table
    assert "20 % of labels flipped: cost 0.200, regained +0.150, 75%" in table


def test_noise_that_cost_nothing_has_no_share() -> None:
    macro_f1 = {"clean": {"0": 0.9}, "late": {"0": 0.9}, "late_reviewed": {"0": 0.95}}
    assert regained(macro_f1)["late"]["share"] is None


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--seeds 1 1: whole numbers of at least 0, each once"):
        main(["--seeds", "1", "1"])
    with pytest.raises(InputError, match="no demo; run 'make demo' first"):
        main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
