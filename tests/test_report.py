import json
from typing import Any

import numpy as np
import pytest

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
    assert report["per_source_class"] == {
        "0_safe_walkway_violation": {"label": "UNSAFE", "n": 3, "accuracy": pytest.approx(2 / 3)},
        "1_unauthorized_intervention": {"label": "UNSAFE", "n": 1, "accuracy": 0.0},
        "4_safe_walkway": {"label": "SAFE", "n": 2, "accuracy": 0.5},
        "5_authorized_intervention": {"label": "SAFE", "n": 1, "accuracy": 0.0},
    }


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
    assert lines[-2:] == ["SAFE frames answered SAFE 1, UNSAFE 2", "UNSAFE frames answered SAFE 2, UNSAFE 2"]
    assert max(map(len, lines)) <= 80


def test_skipped_base_is_null_in_the_report_and_a_dash_in_the_table() -> None:
    report = split_figures(ROWS, P_UNSAFE, None, threshold=0.5)
    assert report["baselines"]["base_model"] is None
    assert cells(report, "accuracy") == ["0.429", "0.500", "-", "0.571"]


def test_prediction_says_where_its_frame_comes_from() -> None:
    answers = ["UNSAFE" if p >= 0.5 else "SAFE" for p in P_UNSAFE]
    found = predictions(ROWS, P_UNSAFE, answers)
    assert len(found) == 7
    assert found[3] == {
        "clip": "b",
        "sample": 0,
        "source_class": "1_unauthorized_intervention",
        "label": "UNSAFE",
        "p_unsafe": 0.4,
        "answer": "SAFE",
    }
