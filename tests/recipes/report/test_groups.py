from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from data_prep.hub.source import open_dataset
from recipes.report.contents import predictions, split_figures
from recipes.report.look import class_in_words
from recipes.report.scored import Scored
from tests.conftest import Kept
from tests.report_by_hand import NOBODY, P_UNSAFE, ROWS

CAMERAS = ["cam 10", "cam 9", "cam 10", "cam 10", "cam 9", "cam 9", None]


def figures_of(rows: dict[str, list[Any]]) -> dict[str, Any]:
    return split_figures(Scored.of(rows, P_UNSAFE, NOBODY, threshold=0.5))


def test_cameras_of_a_table_worked_out_by_hand() -> None:
    """cam 9: clips c and d, answered UNSAFE, SAFE and UNSAFE; cam 10: clips a and b, UNSAFE twice and SAFE."""
    table = figures_of({**ROWS, "camera": CAMERAS})["per_camera"]
    assert {name: (row["n"], row["clips"], row["labels"], row["accuracy"]) for name, row in table.items()} == {
        "cam 9": (3, 2, {"SAFE": 3, "UNSAFE": 0}, pytest.approx(1 / 3)),
        "cam 10": (3, 2, {"SAFE": 0, "UNSAFE": 3}, pytest.approx(2 / 3)),
    }
    assert list(table) == ["cam 9", "cam 10"], "in natural order"


def test_without_a_known_camera_there_is_no_table() -> None:
    assert figures_of(ROWS)["per_camera"] is None
    assert figures_of({**ROWS, "camera": [None] * 7})["per_camera"] is None


def test_own_classes_come_after_the_eight_by_label() -> None:
    names = {
        "0_safe_walkway_violation": "bay 10/blocked",
        "1_unauthorized_intervention": "bay 9/blocked",
        "5_authorized_intervention": "a clear",
    }
    rows = {**ROWS, "source_class": [names.get(name, name) for name in ROWS["source_class"]]}
    table = figures_of(rows)["per_source_class"]
    assert [(name, row["label"], row["n"]) for name, row in table.items()] == [
        ("4_safe_walkway", "SAFE", 2),
        ("bay 9/blocked", "UNSAFE", 1),
        ("bay 10/blocked", "UNSAFE", 3),
        ("a clear", "SAFE", 1),
    ]


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("0_safe_walkway_violation", "safe walkway violation"),
        ("blocked_exit", "blocked exit"),
        ("3_bins_or_more", "3 bins or more"),
        ("bay_2/open", "bay 2/open"),
    ],
)
def test_class_in_words(folder: str, words: str) -> None:
    assert class_in_words(folder) == words


def test_frames_of_held_out_and_joined_clips_are_named_by_their_own_paths() -> None:
    rows = {**ROWS, "clip": [f"north/train/{clip}" for clip in ROWS["clip"]]}
    (first, *_) = predictions(Scored.of(rows, P_UNSAFE, NOBODY, threshold=0.5), "test")
    assert (first["clip"], first["image"]) == ("north/train/a", "north/frames/train/unsafe/a/0000.jpg")


def test_data_set_that_was_pushed_before_there_were_cameras(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(kept.hf_home / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(kept.hf_home / "datasets"))
    rows = open_dataset("local/safe-unsafe-tiny").rows("test")
    assert "camera" not in rows.column_names
    scored = Scored.of(rows, np.full(len(rows), 0.5), {}, threshold=0.5)
    assert list(scored.cameras) == [None] * 16
    assert split_figures(scored)["per_camera"] is None
