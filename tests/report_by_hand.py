"""A small evaluation worked out by hand, and the report of it; for tests of what is made from reports."""

from typing import Any

import numpy as np

from recipes.metrics.class_ids import class_ids
from recipes.report.contents import predictions, split_figures
from recipes.report.scored import Scored

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
BASE: dict[str, np.ndarray | None] = {"base_model": P_BASE}
NOBODY: dict[str, np.ndarray | None] = {"base_model": None}
TRUTH = class_ids(ROWS["response"])

RECORD = {
    "prompt": "Is it <safe>?",
    "labels": ["SAFE", "UNSAFE"],
    "max_pixels": 100352,
    "base_model": "plant/base",
    "base_revision": "c0ffee",
    "dtype": "bfloat16",
    "load_in_4bit": True,
    "frames": {"max_side": 640, "jpeg_quality": 90},
    "dataset": "local/frames",
    "dataset_hash": "feed" * 16,
}


def whole_report(
    *, threshold: float = 0.5, base: bool = True, model: str = "plant/base", prior: float | None = None
) -> dict[str, Any]:
    """Return a report with all that eval_qwen2vl.py puts in one."""
    scored = Scored.of(ROWS, P_UNSAFE, BASE if base else NOBODY, threshold=threshold, prior=prior)
    return {
        **split_figures(scored, not_clean={"d"}),
        "threshold": {
            "value": threshold,
            "in_training": 0.25,
            "chosen": "fixed",
            "prior": {"training": 0.5, "stated": prior, "base_model": 0.5, "linear_probe": 0.5},
        },
        "data": {
            "splits": {"test": {"clips": 4, "frames": 7, "labels": {"SAFE": 3, "UNSAFE": 4}}},
            "audit": {
                "identical_groups": 1,
                "across_splits": 1,
                "under_both_labels": 0,
                "test_clips_with_twins": 1,
                "left_out_of_train": 1,
                "leaks_kept_in_train": 0,
                "frames_left_out_by_list": 0,
                "groups_that_look_alike": 2,
                "clips_that_look_alike": 5,
                "damaged_clips": 1,
                "single_frame_clips": 2,
                "cameras_that_tell_the_label": [],
                "background_probe": None,
            },
            "classes": {},
        },
        "excluded": [{"path": "test/0_x/broken.mp4", "reason": "no frame"}],
        "latency_ms": {"frames": 3, "p50": 12.5, "max": 20.0},
        "config": {
            "adapter": "outputs/<run>",
            "adapter_sha256": "ab" * 32,
            "model": model,
            "revision": "c0ffee",
            "dataset": "local/frames",
            "dataset_revision": None,
            "dataset_hash": "feed" * 16,
            "split": "test",
            "same_data_as_training": True,
            "blank_frames": False,
            "trained_with": RECORD,
            "seed": 0,
            "versions": {"python": "3.12.0"},
            "device": "cpu",
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00",
        },
    }


def frames(threshold: float = 0.5) -> list[dict[str, Any]]:
    """Return the rows of its predictions.jsonl."""
    return predictions(Scored.of(ROWS, P_UNSAFE, NOBODY, threshold=threshold), "test")
