"""The pure parts of the demo's benchmark; nothing is trained here."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.bench_demo import FIGURES, as_table, main, summarise
from benchmarks.measuring import demo_runs
from benchmarks.measuring.demo_marks import Mark, by_visibility, join_mark, read_marks
from benchmarks.measuring.demo_runs import ARMS, Demo, finish_run
from benchmarks.measuring.shuffled_labels import relabelled, shuffle_labels, write_shuffled_data
from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.clips.records import Clip
from data_prep.errors import InputError
from data_prep.files import sha256_of_file, write_json
from data_prep.labels import PROMPT
from data_prep.rows.jsonl import read_rows
from data_prep.rows.validation import split_frames
from recipes.adapter.safety_record import SafetyRecord
from recipes.model.base import BaseModel
from tests.tiny_data import make_clip, many_clips, write_data

# As in the demo's train split: four in five clips are UNSAFE.
CLIPS = [make_clip("train", n % 4, f"u{n}") for n in range(48)]
CLIPS += [make_clip("train", 4 + n % 4, f"s{n}") for n in range(12)]
CLIPS += [make_clip("test", n, f"t{n}") for n in range(8)]


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    clips = many_clips()
    data = write_data(tmp_path / "data", clips)
    source: Any = SimpleNamespace(id="local/safe-unsafe-demo", content_hash="c" * 64)
    base = BaseModel("./outputs/base", "b" * 40, tmp_path / "base")
    return Demo(data, read_clips(data / CLIPS_FILE), {}, source, base, balance_labels=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shuffling_changes_labels_and_keeps_shares_and_clips(seed: int) -> None:
    shuffled = shuffle_labels(CLIPS, seed)
    assert [(c.video_id, c.path, c.sha256, c.frames) for c in shuffled] == [
        (c.video_id, c.path, c.sha256, c.frames) for c in CLIPS
    ]
    for split in ("train", "test"):
        counts = [Counter(c.source_class for c in clips if c.split == split) for clips in (CLIPS, shuffled)]
        assert counts[0] == counts[1]
    assert shuffled[60:] == CLIPS[60:]
    # 19.2 of 60 on average; the standard deviation is 2.5.
    assert 10 <= relabelled(CLIPS, seed) <= 28


def test_each_seed_shuffles_in_its_own_way_and_always_the_same() -> None:
    dealt = [tuple(clip.source_class for clip in shuffle_labels(CLIPS, seed)) for seed in (0, 1, 2, 0)]
    assert len(set(dealt)) == 3
    assert dealt[0] == dealt[3]


def test_shuffled_folder_passes_the_project_s_own_checks(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "seed0"
    write_shuffled_data(demo.data, demo.clips, folder, seed=0)
    old, new = split_frames(demo.data), split_frames(folder)
    assert new["test"] == [
        replace(frame, where=frame.where.replace(str(demo.data), str(folder)), folder=str(folder))
        for frame in old["test"]
    ]
    train = [*new["train"], *new["validation"]]
    label_of_clip = {clip.video_id: clip.label for clip in read_clips(folder / CLIPS_FILE) if clip.split == "train"}
    assert all(frame.response == label_of_clip[frame.clip] for frame in train)
    assert all(frame.image.split("/")[2] == frame.response.lower() for frame in train)
    before = {(frame.clip, frame.sample): frame.response for frame in [*old["train"], *old["validation"]]}
    assert Counter(frame.response for frame in train) == Counter(before.values())
    assert any(frame.response != before[frame.clip, frame.sample] for frame in train)


def test_shuffled_folder_holds_the_same_pictures(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "seed1"
    for _ in range(2):  # what stands there already is replaced
        write_shuffled_data(demo.data, demo.clips, folder, seed=1)
    for split in ("train", "test"):
        rows = zip(read_rows(demo.data / f"{split}.jsonl"), read_rows(folder / f"{split}.jsonl"), strict=True)
        for old, new in rows:
            assert (old.prompt, Path(old.image).name) == (new.prompt, Path(new.image).name)
            assert sha256_of_file(demo.data / old.image) == sha256_of_file(folder / new.image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "seed1"]


def test_marks_are_read_in_their_one_layout(tmp_path: Path) -> None:
    file = tmp_path / "demo_clips.json"
    assert read_marks(file) == {}
    write_json(file, {"settings": {}, "clips": {"test/a/b.mp4": "0" * 64}})
    assert read_marks(file) == {}
    marked = {"sha256": "0" * 64, "hidden_samples": 1, "copy_of": "train/a/c.mp4"}
    write_json(file, {"settings": {}, "clips": {"test/a/b.mp4": marked}})
    assert read_marks(file) == {"test/a/b.mp4": Mark(1, "train/a/c.mp4")}


def prediction(clip: Clip, sample: int, answer: str) -> dict[str, Any]:
    return {
        "clip": clip.video_id,
        "sample": sample,
        "source_class": clip.source_class,
        "label": clip.label,
        "p_unsafe": 0.75 if answer == "UNSAFE" else 0.25,
        "answer": answer,
    }


def test_frames_before_the_behaviour_shows_are_told_apart() -> None:
    clips = [make_clip("train", 4, "x"), make_clip("test", 0, "x"), make_clip("test", 4, "y")]
    marks = {clips[1].path: Mark(1, "train/z.mp4"), clips[2].path: Mark(0, None)}
    predictions = [
        prediction(clips[1], 0, "SAFE"),
        prediction(clips[1], 1, "UNSAFE"),
        prediction(clips[2], 0, "UNSAFE"),
    ]
    frames = [join_mark(one, clips, marks) for one in predictions]
    assert [frame["image"] for frame in frames] == [
        "frames/test/unsafe/x/0000.jpg",
        "frames/test/unsafe/x/0001.jpg",
        "frames/test/safe/y/0000.jpg",
    ]
    assert [(frame["hidden"], frame["copy_of"]) for frame in frames] == [
        (True, "train/z.mp4"),
        (False, "train/z.mp4"),
        (False, None),
    ]
    assert by_visibility(frames) == {"hidden": {"n": 1, "wrong": 1}, "visible": {"n": 2, "wrong": 1}}
    twice_a_second = [replace(clip, settings=replace(clip.settings, fps=2.0)) for clip in clips]
    assert [join_mark(one, twice_a_second, marks)["hidden"] for one in predictions] == [None] * 3
    unmarked = [join_mark(one, clips, {}) for one in predictions]
    assert {frame["hidden"] for frame in unmarked} == {None}
    assert by_visibility(unmarked) is None


def run_of(arm: str, seed: int, frame: float | None, seconds: float = 60.0) -> dict[str, Any]:
    figures = {"macro_f1": frame, "balanced_accuracy": 0.5}
    return {
        "arm": arm,
        "seed": seed,
        "training_seconds": {"wall": seconds, "train_runtime": 50.0},
        "results": {"frame": figures, "clip": None},
        "baselines": {
            "base_model": {"frame": {"macro_f1": 0.125, "balanced_accuracy": 0.5}},
            "always_unsafe": {"frame": {"macro_f1": 0.25, "balanced_accuracy": 0.5}},
        },
    }


FRAME_MACRO_F1 = {"weighted": (0.75, 0.5, 0.625), "unweighted": (0.5, 0.625, 0.5), "shuffled": (0.25, 0.5, None)}
RUNS = [run_of(arm, seed, FRAME_MACRO_F1[arm][seed]) for seed in range(3) for arm in ARMS]


def test_summary_gives_medians_and_differences_by_seed() -> None:
    summary = summarise(RUNS)
    assert summary["arms"]["weighted"]["frame_macro_f1"] == {
        "median": 0.625,
        "by_seed": {"0": 0.75, "1": 0.5, "2": 0.625},
    }
    assert summary["arms"]["shuffled"]["frame_macro_f1"]["median"] is None
    assert summary["arms"]["weighted"]["clip_macro_f1"]["by_seed"] == {"0": None, "1": None, "2": None}
    differences = summary["weighted_minus_unweighted"]
    assert differences["frame_macro_f1"] == {"median": 0.125, "by_seed": {"0": 0.25, "1": -0.125, "2": 0.125}}
    assert set(differences) == set(FIGURES)
    json.dumps(summary, allow_nan=False)


def test_table_names_the_recipe_and_shows_each_seed() -> None:
    results = {"summary": summarise(RUNS), "seeds": [0, 1, 2], "recipe_arm": "unweighted", "runs": RUNS}
    lines = as_table(results).splitlines()
    assert lines[0].split() == ["median", "seed", "0", "seed", "1", "seed", "2"]
    blocks = {line[:24].strip(): line[24:].split() for line in lines if line[:24].strip()}
    assert list(blocks) == [
        "weighted",
        "unweighted, the recipe",
        "shuffled labels",
        "weighted - unweighted",
        "base model, no adapter",
        "always UNSAFE",
    ]
    assert blocks["unweighted, the recipe"] == ["frame", "macro", "F1", "0.500", "0.500", "0.625", "0.500"]
    assert blocks["shuffled labels"] == ["frame", "macro", "F1", "-", "0.250", "0.500", "-"]
    assert lines[5].split() == ["wall", "seconds", "60.0", "60.0", "60.0", "60.0"]
    assert blocks["weighted - unweighted"][-4:] == ["0.125", "0.250", "-0.125", "0.125"]
    assert (blocks["base model, no adapter"][-1], blocks["always UNSAFE"][-1]) == ("0.125", "0.250")


def finished_run(demo: Demo, folder: Path) -> dict[str, Any]:
    """Leave what training and evaluation leave, with one of two frames wrong; returns the report."""
    folder.mkdir(parents=True)
    SafetyRecord(
        prompt=PROMPT,
        labels=("SAFE", "UNSAFE"),
        max_pixels=100352,
        base_model=demo.base.name,
        base_revision=demo.base.revision,
        dtype="float32",
        load_in_4bit=True,
        threshold=0.5,
        threshold_from="fixed",
        training_prior=0.5,
        dataset=demo.source.id,
        dataset_revision=None,
        dataset_hash=demo.source.content_hash,
        seed=0,
    ).write(folder)
    write_json(folder / "training.json", {"seconds": 50.0})
    write_json(folder / "bench_run.json", {"made_from": demo.made_from, "wall_seconds": 61.5})
    (folder / "eval").mkdir()
    report = {"results": {"frame": {"n": 2}}, "confusion_matrix": {}, "baselines": {}, "config": {}}
    write_json(folder / "eval" / "report.json", report)
    test = [clip for clip in demo.clips if clip.split == "test"]
    lines = [json.dumps(prediction(clip, 1, "SAFE")) for clip in (test[0], test[7])]
    (folder / "eval" / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    return report


def refuse_to_run(arguments: list[str], doing: str) -> float:
    raise AssertionError(f"{doing}: {arguments}")


def test_finished_run_is_kept(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_runs, "run_python", refuse_to_run)
    report = finished_run(demo, tmp_path / "out" / "weighted" / "seed0")
    record = finish_run(demo, tmp_path / "out", "weighted", 0)
    assert record["training_seconds"] == {"wall": 61.5, "train_runtime": 50.0}
    assert record["results"] == report["results"]
    (wrong,) = record["wrong_frames"]
    assert (wrong["image"], wrong["p_unsafe"]) == ("frames/test/unsafe/0_te0/0001.jpg", 0.25)
    assert "config" not in record


def test_run_of_other_data_is_refused(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "weighted" / "seed0"
    finished_run(demo, folder)
    write_json(folder / "bench_run.json", {"made_from": {**demo.made_from, "dataset_hash": "d"}, "wall_seconds": 1.0})
    with pytest.raises(InputError, match="made from other data"):
        finish_run(demo, tmp_path / "out", "weighted", 0)


def test_finished_run_of_another_command_is_never_removed(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "weighted" / "seed0"
    finished_run(demo, folder)
    (folder / "bench_run.json").unlink()
    with pytest.raises(InputError, match=r"without bench_run\.json"):
        finish_run(demo, tmp_path / "out", "weighted", 0)
    assert (folder / "safety.json").is_file()


@pytest.mark.parametrize("present", [False, True], ids=["no data", "data that was not pushed"])
def test_what_make_demo_has_not_made_is_named(tmp_path: Path, present: bool) -> None:
    data = tmp_path / "data"
    if present:
        write_data(data, many_clips())
    with pytest.raises(InputError, match="run 'make demo' first"):
        main(["--data", str(data), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_data_changed_since_the_push_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: str) -> SimpleNamespace:
        return SimpleNamespace(content_hash=name)

    def found(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name)

    monkeypatch.setattr("data_prep.hub.source.open_dataset", opened)
    monkeypatch.setattr("recipes.model.base.find_base", found)
    with pytest.raises(InputError, match="holds other data than"):
        demo_runs.open_demo(tmp_path)


@pytest.mark.parametrize("seeds", [["-1"], ["1", "1"]])
def test_unusable_seeds_are_refused(seeds: list[str]) -> None:
    with pytest.raises(InputError, match="--seeds"):
        main(["--seeds", *seeds])
