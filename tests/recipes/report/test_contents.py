import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets.arrow_dataset import Column

from data_prep import build_jsonl
from data_prep.errors import InputError
from data_prep.hub.source import FramesSource, open_dataset
from data_prep.labels import LABELS
from recipes.adapter.folder import Adapter
from recipes.adapter.safety_record import SafetyRecord
from recipes.answering.scoring import SplitScores
from recipes.report import measuring
from recipes.report.contents import about_data, clips_not_clean, make_report, predictions, split_figures
from recipes.report.evaluated_split import EvaluatedSplit, check_labels, open_split
from recipes.report.scored import Scored
from recipes.report.side_by_side import read_evaluation
from recipes.report.table import as_table
from recipes.report.writing import write_report
from tests.recipes.adapter.test_safety_record import RECORD
from tests.report_by_hand import BASE, NOBODY, P_UNSAFE, ROWS, whole_report
from tests.tiny_data import make_clip, many_clips, write_data

FRAME = {"n": 7, "accuracy": 3 / 7, "precision": 2 / 4, "recall": 2 / 4, "macro_f1": (1 / 2 + 1 / 3) / 2}  # 2 2 2 1
CLIP = {"n": 4, "accuracy": 2 / 4, "precision": 1 / 2, "recall": 1 / 2, "macro_f1": 1 / 2, "auroc": 2 / 4}  # 1 1 1 1
CLIP_BRIER = (0.4**2 + 0.6**2 + 0.35**2 + 0.8**2) / 4


def of_one_clip(label: str, source_class: str, frames: int) -> dict[str, list[Any]]:
    columns: dict[str, Any] = {"clip": "a", "response": label, "source_class": source_class}
    return {"sample": list(range(frames)), **{name: [value] * frames for name, value in columns.items()}}


def some(figures: dict[str, Any], wanted: dict[str, float]) -> dict[str, Any]:
    return {name: figures[name] for name in wanted}


def test_frames_and_clips_of_a_table_worked_out_by_hand() -> None:
    report = split_figures(Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.5))
    frame, clip = report["results"]["frame"], report["results"]["clip"]
    assert some(frame, FRAME) == pytest.approx(FRAME)
    assert some(clip, CLIP) == pytest.approx(CLIP)
    assert clip["brier"] == pytest.approx(CLIP_BRIER)
    assert frame.keys() == clip.keys()


def test_clips_are_counted_by_the_labels_of_their_frames() -> None:
    """Whatever behaviour they are said to show: frames may be relabelled by hand."""
    relabelled = {**ROWS, "response": ["SAFE", "SAFE", *ROWS["response"][2:]]}
    assert split_figures(Scored.of(ROWS, P_UNSAFE, NOBODY, threshold=0.5))["clips"] == {"SAFE": 2, "UNSAFE": 2}
    assert split_figures(Scored.of(relabelled, P_UNSAFE, NOBODY, threshold=0.5))["clips"] == {"SAFE": 3, "UNSAFE": 2}


def test_confusion_matrix_and_classes_count_frames() -> None:
    report = split_figures(Scored.of(ROWS, P_UNSAFE, NOBODY, threshold=0.5))
    assert report["confusion_matrix"] == {"SAFE": {"SAFE": 1, "UNSAFE": 2}, "UNSAFE": {"SAFE": 2, "UNSAFE": 2}}
    table = report["per_source_class"]
    assert {name: [row["label"], row["n"], row["clips"], row["accuracy"]] for name, row in table.items()} == {
        "0_safe_walkway_violation": ["UNSAFE", 3, 1, pytest.approx(2 / 3)],
        "1_unauthorized_intervention": ["UNSAFE", 1, 1, 0.0],
        "4_safe_walkway": ["SAFE", 2, 1, 0.5],
        "5_authorized_intervention": ["SAFE", 1, 1, 0.0],
    }
    assert {row["interval"] for row in table.values()} == {None}, "one clip tells nothing of other clips"
    assert {row["error_at_most"] for row in table.values()} == {None}


def test_behaviour_without_an_error_has_the_rule_of_three_beside_it() -> None:
    rows = of_one_clip("UNSAFE", "0_safe_walkway_violation", frames=8) | {"clip": list("aabbccdd")}
    p_unsafe = np.full(8, 0.9)
    (row,) = split_figures(Scored.of(rows, p_unsafe, NOBODY, threshold=0.5))["per_source_class"].values()
    assert (row["clips"], row["interval"], row["error_at_most"]) == (4, (1.0, 1.0), 3 / 4)
    p_unsafe[3] = 0.1
    (row,) = split_figures(Scored.of(rows, p_unsafe, NOBODY, threshold=0.5))["per_source_class"].values()
    assert (row["accuracy"], row["error_at_most"]) == (7 / 8, None)


def test_stated_prior_weighs_all_figures_and_no_count() -> None:
    """Right at 0.5: of UNSAFE frames 2 of 4, of SAFE ones 1 of 3; of either's clips 1 of 2; a tenth is to be UNSAFE."""
    weighed, as_they_are = (Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.5, prior=prior) for prior in (0.1, None))
    report, plain = split_figures(weighed), split_figures(as_they_are)
    frame, clip = report["results"]["frame"], report["results"]["clip"]
    precision = 0.1 * 2 / 4 / (0.1 * 2 / 4 + 0.9 * 2 / 3)
    wanted = {"n": 7, "accuracy": 0.1 * 2 / 4 + 0.9 / 3, "precision": precision, "recall": 2 / 4}
    assert some(frame, wanted) == pytest.approx(wanted)
    squares = {"a": 0.4**2, "b": 0.6**2, "c": 0.35**2, "d": 0.8**2}
    brier = 0.1 * (squares["a"] + squares["b"]) / 2 + 0.9 * (squares["c"] + squares["d"]) / 2
    assert (clip["brier"], clip["n"]) == (pytest.approx(brier), 4)
    always = report["baselines"]["always_unsafe"]
    assert [always[unit]["accuracy"] for unit in ("frame", "clip")] == pytest.approx([0.1, 0.1])
    assert always["frame"]["intervals"]["accuracy"] == pytest.approx((0.1, 0.1)), "the share holds in each resample"
    base = report["baselines"]["base_model"]["frame"]
    assert base["accuracy"] == pytest.approx(0.1 * 3 / 4 + 0.9)
    difference = report["comparison"]["base_model"]
    assert difference["frame"]["accuracy"]["value"] == pytest.approx(frame["accuracy"] - base["accuracy"])
    for same in ("confusion_matrix", "per_source_class"):
        assert report[same] == plain[same]
    assert difference["mcnemar"] == plain["comparison"]["base_model"]["mcnemar"]
    assert [row["n"] for row in report["calibration"]] == [row["n"] for row in plain["calibration"]]
    (bin_of_both,) = [row for row in report["calibration"] if row["from"] == 0.6]  # a frame of a and one of c
    assert bin_of_both["unsafe_share"] == pytest.approx(0.1 / 4 / (0.1 / 4 + 0.9 / 3))
    assert report["at_plain_threshold"]["frame"] == frame


def test_clean_subset_of_one_label_has_no_figures_of_a_stated_share() -> None:
    scored = Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.5, prior=0.1)
    clean = split_figures(scored, not_clean={"d", "c"})["clean_subset"]
    frame = clean["results"]["frame"]
    assert (frame["n"], frame["accuracy"], frame["brier"], frame["recall"]) == (4, None, None, 2 / 4)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FramesSource:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, many_clips())
    return open_dataset(str(folder))


def adapter_of(record: SafetyRecord) -> Adapter:
    """An adapter whose base nobody asks for."""
    base: Any = None
    return Adapter(Path(), record, base)


def test_stated_prior_corrects_all_that_are_compared(source: FramesSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base from an even prior, adapter and probe from what they were trained under: odds of 4 to 1."""
    p_unsafe = np.array([0.0, 0.5, 0.8, 1.0])
    monkeypatch.setattr(measuring, "read_probe", lambda folder: None)
    monkeypatch.setattr(measuring, "score_together", lambda *_, **__: SplitScores(p_unsafe, p_unsafe, p_unsafe))
    record = replace(RECORD, training_prior=0.8)
    adapted: Any = SimpleNamespace(record=record, model=None, collator=None)
    split = EvaluatedSplit(adapter_of(record), source, "test", source.rows("test").select(range(4)), prior=0.2)
    found = measuring.measure_split(split, adapted, batch_size=1)
    assert found.p_unsafe == pytest.approx([0.0, 1 / 17, 4 / 20, 1.0])  # odds times 1/16
    assert found.baselines["linear_probe"] == pytest.approx(found.p_unsafe)
    assert found.baselines["base_model"] == pytest.approx([0.0, 1 / 5, 1 / 2, 1.0])  # odds times 1/4
    plain = measuring.measure_split(replace(split, prior=None), adapted, batch_size=1)
    assert [plain.p_unsafe, *plain.baselines.values()] == [pytest.approx(p_unsafe)] * 3


@pytest.mark.parametrize("prior", [None, 0.1])
def test_whole_report_reads_no_column_row_by_row(
    source: FramesSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prior: float | None
) -> None:
    """One that is read so takes seconds for 100,000 rows, one that is read whole hundredths."""
    monkeypatch.setattr(Column, "__iter__", lambda column: pytest.fail(f"{column.column_name} is read row by row"))
    record = replace(RECORD, threshold=0.4, threshold_from="macro_f1 on 4 validation frames", training_prior=0.5)
    split = open_split(adapter_of(record), source, "test", prior=prior)
    scores = np.linspace(0.05, 0.95, len(split.rows))
    baselines: dict[str, np.ndarray | None] = {"base_model": scores[::-1].copy(), "linear_probe": None}
    scored = Scored.of(split.rows, scores, baselines, threshold=record.threshold_at(prior), prior=prior)
    report = make_report(split, scored)
    report |= {name: whole_report()[name] for name in ("config", "latency_ms")}
    write_report(tmp_path, report, split, scored)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["schema_version"] == 6
    assert written["threshold"]["value"] == pytest.approx(0.4 if prior is None else 4 / (4 + 54))
    assert read_evaluation(tmp_path).prior == prior


def test_split_of_one_label_has_no_share_to_be_weighed_for() -> None:
    rows = {"response": ["SAFE", "SAFE"]}
    check_labels(rows, "test", None)
    with pytest.raises(InputError, match=r"--prior 0\.02: split 'test' holds SAFE frames alone .*; leave --prior out"):
        check_labels(rows, "test", 0.02)


def test_intervals_are_those_of_clips_with_all_their_frames() -> None:
    """Of twelve clips of ten frames each, all alike within a clip, frames are no surer than clips are."""
    truth, right = [0, 1] * 6, [1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1]
    p_clip = [abs(label - (0.1 if good else 0.9)) for label, good in zip(truth, right, strict=True)]
    rows = {
        "clip": [f"c{number:02d}" for number in range(12) for _ in range(10)],
        "sample": [sample for _ in range(12) for sample in range(10)],
        "response": [LABELS[label] for label in truth for _ in range(10)],
        "source_class": [
            "0_safe_walkway_violation" if label else "4_safe_walkway" for label in truth for _ in range(10)
        ],
    }
    results = split_figures(Scored.of(rows, np.repeat(p_clip, 10), NOBODY, threshold=0.5))["results"]
    of_frames, of_clips = (results[unit]["intervals"]["accuracy"] for unit in ("frame", "clip"))
    assert of_frames == pytest.approx(of_clips)
    assert of_frames[0] < 0.7 and of_frames[1] == 1.0


def test_base_is_compared_on_the_same_frames_and_clips() -> None:
    """At 0.5 the adapter gets clips a and c right, the base a, c and d."""
    compared = split_figures(Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.5))["comparison"]["base_model"]
    assert compared["mcnemar"] == {"only_first_right": 0, "only_second_right": 1, "p_value": 1.0}
    assert compared["frame"]["accuracy"]["value"] == pytest.approx(3 / 7 - 6 / 7)
    assert compared["clip"]["accuracy"]["value"] == pytest.approx(2 / 4 - 3 / 4)
    low, high = compared["frame"]["accuracy"]["interval"]
    assert low <= 3 / 7 - 6 / 7 <= high
    assert split_figures(Scored.of(ROWS, P_UNSAFE, NOBODY, threshold=0.5))["comparison"] == {"base_model": None}


def test_threshold_is_the_adapter_s_for_frames_and_clips_and_not_its_base_s() -> None:
    report = split_figures(Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.7))
    assert report["results"]["frame"]["recall"] == 1 / 4
    assert report["results"]["clip"]["recall"] == 0.0  # 0.6 no longer is enough
    base = report["baselines"]["base_model"]
    assert (base["frame"]["recall"], base["frame"]["precision"]) == (3 / 4, 1.0)
    assert (base["clip"]["recall"], base["clip"]["precision"]) == (1 / 2, 1.0)


def test_baselines_have_the_shape_of_the_results() -> None:
    report = split_figures(Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.5))
    for baseline in report["baselines"].values():
        assert {unit: set(figures) for unit, figures in baseline.items()} == {
            unit: set(figures) for unit, figures in report["results"].items()
        }
    always = report["baselines"]["always_unsafe"]
    wanted = {"accuracy": 4 / 7, "recall": 1.0, "balanced_accuracy": 0.5, "macro_f1": 8 / 11 / 2}
    assert some(always["frame"], wanted) == pytest.approx(wanted)
    assert always["clip"]["accuracy"] == 2 / 4


def test_single_frame_clips_have_the_frames_figures() -> None:
    rows = {**ROWS, "clip": list("abcdefg")}
    results = split_figures(Scored.of(rows, P_UNSAFE, NOBODY, threshold=0.5))["results"]
    assert results["clip"].pop("intervals").keys() == results["frame"].pop("intervals").keys()
    assert results["clip"] == pytest.approx(results["frame"])


@pytest.mark.parametrize(("label", "recall"), [("SAFE", None), ("UNSAFE", 0.0)])
def test_one_class_leaves_null_and_no_nan(label: str, recall: float | None) -> None:
    source_class = "4_safe_walkway" if label == "SAFE" else "0_safe_walkway_violation"
    rows = of_one_clip(label, source_class, frames=2)
    report = split_figures(Scored.of(rows, np.array([0.9, 0.0]), {"base_model": np.array([0.1, 0.1])}, threshold=0.5))
    json.dumps(report, allow_nan=False)
    clip = report["results"]["clip"]
    assert (clip["n"], clip["recall"], clip["macro_f1"], clip["auroc"]) == (1, recall, None, None)
    assert clip["brier"] == pytest.approx((0.45 - (label == "UNSAFE")) ** 2)


def test_clip_with_frames_of_both_labels_has_no_clip_figures() -> None:
    rows = {**ROWS, "clip": ["a", "a", "a", "b", "d", "c", "a"]}
    report = split_figures(Scored.of(rows, P_UNSAFE, BASE, threshold=0.5))
    assert report["results"]["clip"] is None
    assert report["baselines"]["always_unsafe"]["clip"] is None
    assert (report["comparison"]["base_model"]["clip"], report["comparison"]["base_model"]["mcnemar"]) == (None, None)
    assert cells(report, "macro_f1")[1] == "-"


def cells(report: dict[str, Any], name: str) -> list[str]:
    (line,) = [line for line in as_table(report).splitlines() if line.startswith(name + " ")]
    return line.split()[1:]


def test_table_shows_frames_clips_base_and_always_unsafe() -> None:
    report = split_figures(Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.5))
    assert cells(report, "accuracy") == ["0.429", "0.500", "0.857", "0.571"]
    assert cells(report, "macro_f1") == ["0.417", "0.500", "0.857", "0.364"]
    lines = as_table(report).splitlines()
    assert lines[1].split() == ["7", "frames", "4", "clips", "7", "frames", "7", "frames"]
    low, high = report["results"]["frame"]["intervals"]["macro_f1"]
    assert cells(report, "  95 % interval")[2] == f"{low:.3f}-{high:.3f}"
    assert lines[-1] == "clips that the adapter alone gets right 0, the base model alone 1; McNemar's p 1"
    assert lines[-3:-1] == ["SAFE frames answered SAFE 1, UNSAFE 2", "UNSAFE frames answered SAFE 2, UNSAFE 2"]
    assert max(map(len, lines)) <= 80


def test_skipped_base_is_null_in_the_report_and_a_dash_in_the_table() -> None:
    report = split_figures(Scored.of(ROWS, P_UNSAFE, NOBODY, threshold=0.5))
    assert report["baselines"]["base_model"] is None
    assert cells(report, "accuracy") == ["0.429", "0.500", "-", "0.571"]


def test_prediction_says_where_its_frame_comes_from() -> None:
    scored = Scored.of(ROWS, P_UNSAFE, NOBODY, threshold=0.5)
    found = predictions(scored, "validation")
    assert len(found) == 7
    assert found[3] == {
        "image": "frames/train/unsafe/b/0000.jpg",
        "clip": "b",
        "sample": 0,
        "source_class": "1_unauthorized_intervention",
        "label": "UNSAFE",
        "p_unsafe": 0.4,
        "answer": "SAFE",
    }
    assert predictions(scored, "test")[1]["image"] == "frames/test/safe/c/0000.jpg"


def test_figures_at_one_half_stand_beside_those_at_the_threshold() -> None:
    report = split_figures(Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.7))
    plain = report["at_plain_threshold"]
    assert plain["value"] == 0.5
    assert some(plain["frame"], FRAME) == pytest.approx(FRAME)
    assert report["results"]["frame"]["recall"] == 1 / 4


def test_clean_subset_leaves_out_whole_clips() -> None:
    """Without a and d: frames c 0.6 and 0.1, SAFE, and b 0.4, UNSAFE; of the three one is right."""
    scored = Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.5)
    clean = split_figures(scored, not_clean={"d", "a", "of no frame"})["clean_subset"]
    assert clean["clips_left_out"] == ["a", "d"]
    assert (clean["results"]["frame"]["n"], clean["results"]["clip"]["n"]) == (3, 2)
    assert clean["results"]["frame"]["accuracy"] == pytest.approx(1 / 3)
    nothing = split_figures(scored, not_clean=set("abcd"))["clean_subset"]
    assert nothing == {"clips_left_out": list("abcd"), "results": None}
    assert split_figures(scored)["clean_subset"] is None


def test_data_are_told_of_as_the_audit_found_them(tmp_path: Path) -> None:
    clips = [
        *many_clips(),
        make_clip("train", 1, "copy", content="test 1_te0"),
        replace(make_clip("test", 6, "broken"), status="failed", reason="no frame", samples=()),
        replace(make_clip("train", 6, "torn"), status="failed", reason="no frame", samples=()),
    ]
    write_data(tmp_path, clips)
    assert about_data(open_dataset(str(tmp_path)), "test")["data"]["audit"] is None
    assert clips_not_clean(open_dataset(str(tmp_path)), "test") is None
    (tmp_path / "list.txt").write_text("frames/train/unsafe/0_tr0\nframes/train/safe/4_tr1/0000.jpg\tlate\n")
    assert build_jsonl.main(["--data", str(tmp_path), "--leave-out", str(tmp_path / "list.txt")]) == 0
    source = open_dataset(str(tmp_path))
    found = about_data(source, "test")
    assert found["data"]["splits"]["test"] == {"frames": 16, "clips": 8, "labels": {"SAFE": 8, "UNSAFE": 8}}
    assert found["data"]["audit"] == {
        "identical_groups": 1,
        "across_splits": 1,
        "under_both_labels": 0,
        "test_clips_with_twins": 1,
        "left_out_of_train": 1,
        "leaks_kept_in_train": 0,
        "frames_left_out_by_list": 3,
        "groups_that_look_alike": 1,  # each frame is of one colour
        "clips_that_look_alike": 33,
        "damaged_clips": 2,
        "single_frame_clips": 0,
        "cameras_that_tell_the_label": [],
        "background_probe": None,
    }
    assert [clip["path"] for clip in found["excluded"]] == ["test/6_closed_panel_cover/broken.mp4"]
    assert [clip["path"] for clip in about_data(source, "validation")["excluded"]] == [
        "train/6_closed_panel_cover/torn.mp4"
    ]
    assert clips_not_clean(source, "test") == {"1_te0"}
    assert clips_not_clean(source, "validation") is None
