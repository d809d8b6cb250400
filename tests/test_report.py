import json
from typing import Any

import numpy as np
import pytest

from data_prep.labels import LABELS
from recipes.report import as_table, predictions, split_figures

# Four clips, two of a single frame, rows of one clip apart. Means by clip: a 0.6, b 0.4, c 0.35, d 0.8.
ROWS: dict[str, list[Any]] = {
    "clip": ["a", "c", "a", "b", "d", "c", "a"],
    "sample": [0, 0, 1, 0, 0, 1, 2],
    "response": ["UNSAFE", "SAFE", "UNSAFE", "UNSAFE", "SAFE", "SAFE", "UNSAFE"],
    "source_class": [
        "0_safe_walkway_violation",
        "4_safe_walkway",
        "0_safe_walkway_violation",
        "1_unauthorized_intervention",
        "5_authorized_intervention",
        "4_safe_walkway",
        "0_safe_walkway_violation",
    ],
}
P_UNSAFE = np.array([0.9, 0.6, 0.6, 0.4, 0.8, 0.1, 0.3])
# Without the adapter: frames TP 3, FN 1, FP 0, TN 3; the means by clip are a 0.6, b 0.2, c 0.15, d 0.4.
P_BASE = np.array([0.6, 0.2, 0.6, 0.2, 0.4, 0.1, 0.6])
FRAME = {"n": 7, "accuracy": 3 / 7, "precision": 2 / 4, "recall": 2 / 4, "macro_f1": (1 / 2 + 1 / 3) / 2}  # 2 2 2 1
CLIP = {"n": 4, "accuracy": 2 / 4, "precision": 1 / 2, "recall": 1 / 2, "macro_f1": 1 / 2, "auroc": 2 / 4}  # 1 1 1 1
CLIP_BRIER = (0.4**2 + 0.6**2 + 0.35**2 + 0.8**2) / 4


def of_one_clip(label: str, source_class: str, frames: int) -> dict[str, list[Any]]:
    return {"clip": ["a"] * frames, "response": [label] * frames, "source_class": [source_class] * frames}


def some(figures: dict[str, Any], wanted: dict[str, float]) -> dict[str, Any]:
    return {name: figures[name] for name in wanted}


def test_frames_and_clips_of_a_table_worked_out_by_hand() -> None:
    report = split_figures(ROWS, P_UNSAFE, P_BASE, threshold=0.5)
    frame, clip = report["results"]["frame"], report["results"]["clip"]
    assert some(frame, FRAME) == pytest.approx(FRAME)
    assert some(clip, CLIP) == pytest.approx(CLIP)
    assert clip["brier"] == pytest.approx(CLIP_BRIER)
    assert frame.keys() == clip.keys()


def test_confusion_matrix_and_classes_count_frames() -> None:
    report = split_figures(ROWS, P_UNSAFE, None, threshold=0.5)
    assert report["confusion_matrix"] == {"SAFE": {"SAFE": 1, "UNSAFE": 2}, "UNSAFE": {"SAFE": 2, "UNSAFE": 2}}
    table = report["per_source_class"]
    assert {name: [row["label"], row["n"], row["clips"], row["accuracy"]] for name, row in table.items()} == {
        "0_safe_walkway_violation": ["UNSAFE", 3, 1, pytest.approx(2 / 3)],
        "1_unauthorized_intervention": ["UNSAFE", 1, 1, 0.0],
        "4_safe_walkway": ["SAFE", 2, 1, 0.5],
        "5_authorized_intervention": ["SAFE", 1, 1, 0.0],
    }
    assert table["4_safe_walkway"]["interval"] == (0.5, 0.5), "one clip tells nothing of other clips"


def test_intervals_are_those_of_clips_with_all_their_frames() -> None:
    """Of twelve clips of ten frames each, all alike within a clip, frames are no surer than clips are."""
    truth, right = [0, 1] * 6, [1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1]
    p_clip = [abs(label - (0.1 if good else 0.9)) for label, good in zip(truth, right, strict=True)]
    rows = {
        "clip": [f"c{number:02d}" for number in range(12) for _ in range(10)],
        "response": [LABELS[label] for label in truth for _ in range(10)],
        "source_class": [
            "0_safe_walkway_violation" if label else "4_safe_walkway" for label in truth for _ in range(10)
        ],
    }
    results = split_figures(rows, np.repeat(p_clip, 10), None, threshold=0.5)["results"]
    of_frames, of_clips = (results[unit]["intervals"]["accuracy"] for unit in ("frame", "clip"))
    assert of_frames == pytest.approx(of_clips)
    assert of_frames[0] < 0.7 and of_frames[1] == 1.0


def test_base_is_compared_on_the_same_frames_and_clips() -> None:
    """At 0.5 the adapter gets clips a and c right, the base a, c and d."""
    compared = split_figures(ROWS, P_UNSAFE, P_BASE, threshold=0.5)["comparison"]["base_model"]
    assert compared["mcnemar"] == {"only_first_right": 0, "only_second_right": 1, "p_value": 1.0}
    assert compared["frame"]["accuracy"]["value"] == pytest.approx(3 / 7 - 6 / 7)
    assert compared["clip"]["accuracy"]["value"] == pytest.approx(2 / 4 - 3 / 4)
    low, high = compared["frame"]["accuracy"]["interval"]
    assert low <= 3 / 7 - 6 / 7 <= high
    assert split_figures(ROWS, P_UNSAFE, None, threshold=0.5)["comparison"] == {"base_model": None}


def test_threshold_is_the_adapter_s_for_frames_and_clips_and_not_its_base_s() -> None:
    report = split_figures(ROWS, P_UNSAFE, P_BASE, threshold=0.7)
    assert report["results"]["frame"]["recall"] == 1 / 4
    assert report["results"]["clip"]["recall"] == 0.0  # 0.6 no longer is enough
    base = report["baselines"]["base_model"]
    assert (base["frame"]["recall"], base["frame"]["precision"]) == (3 / 4, 1.0)
    assert (base["clip"]["recall"], base["clip"]["precision"]) == (1 / 2, 1.0)


def test_baselines_have_the_shape_of_the_results() -> None:
    report = split_figures(ROWS, P_UNSAFE, P_BASE, threshold=0.5)
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
    results = split_figures(rows, P_UNSAFE, None, threshold=0.5)["results"]
    assert results["clip"].pop("intervals").keys() == results["frame"].pop("intervals").keys()
    assert results["clip"] == pytest.approx(results["frame"])


@pytest.mark.parametrize(("label", "recall"), [("SAFE", None), ("UNSAFE", 0.0)])
def test_one_class_leaves_null_and_no_nan(label: str, recall: float | None) -> None:
    source_class = "4_safe_walkway" if label == "SAFE" else "0_safe_walkway_violation"
    rows = of_one_clip(label, source_class, frames=2)
    report = split_figures(rows, np.array([0.9, 0.0]), np.array([0.1, 0.1]), threshold=0.5)
    json.dumps(report, allow_nan=False)
    clip = report["results"]["clip"]
    assert (clip["n"], clip["recall"], clip["macro_f1"], clip["auroc"]) == (1, recall, None, None)
    assert clip["brier"] == pytest.approx((0.45 - (label == "UNSAFE")) ** 2)


def test_clip_with_frames_of_both_labels_has_no_clip_figures() -> None:
    rows = {**ROWS, "clip": ["a", "a", "a", "b", "d", "c", "a"]}
    report = split_figures(rows, P_UNSAFE, P_BASE, threshold=0.5)
    assert report["results"]["clip"] is None
    assert report["baselines"]["always_unsafe"]["clip"] is None
    assert (report["comparison"]["base_model"]["clip"], report["comparison"]["base_model"]["mcnemar"]) == (None, None)
    assert cells(report, "macro_f1")[1] == "-"


def cells(report: dict[str, Any], name: str) -> list[str]:
    (line,) = [line for line in as_table(report).splitlines() if line.startswith(name + " ")]
    return line.split()[1:]


def test_table_shows_frames_clips_base_and_always_unsafe() -> None:
    report = split_figures(ROWS, P_UNSAFE, P_BASE, threshold=0.5)
    assert cells(report, "accuracy") == ["0.429", "0.500", "0.857", "0.571"]
    assert cells(report, "macro_f1") == ["0.417", "0.500", "0.857", "0.364"]
    lines = as_table(report).splitlines()
    assert lines[1].split() == ["7", "frames", "4", "clips", "7", "frames", "7", "frames"]
    low, high = report["results"]["frame"]["intervals"]["macro_f1"]
    assert cells(report, "  95 % interval")[2] == f"{low:.3f}-{high:.3f}"
    assert lines[-1] == "clips that the adapter alone gets right 0, the base alone 1; McNemar's p 1"
    assert lines[-3:-1] == ["SAFE frames answered SAFE 1, UNSAFE 2", "UNSAFE frames answered SAFE 2, UNSAFE 2"]
    assert max(map(len, lines)) <= 80


def test_skipped_base_is_null_in_the_report_and_a_dash_in_the_table() -> None:
    report = split_figures(ROWS, P_UNSAFE, None, threshold=0.5)
    assert report["baselines"]["base_model"] is None
    assert cells(report, "accuracy") == ["0.429", "0.500", "-", "0.571"]


def test_prediction_says_where_its_frame_comes_from() -> None:
    answers = ["UNSAFE" if p >= 0.5 else "SAFE" for p in P_UNSAFE]
    found = predictions(ROWS, P_UNSAFE, answers, "validation")
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
    assert predictions(ROWS, P_UNSAFE, answers, "test")[1]["image"] == "frames/test/safe/c/0000.jpg"
