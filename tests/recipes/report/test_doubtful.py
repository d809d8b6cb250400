"""Which training frames are ranked where, and for what reason, with numbers noted by hand."""

from pathlib import Path
from typing import Any

import numpy as np

from data_prep.hub.source import open_dataset
from data_prep.labels import TRAIN
from data_prep.rows.validation import split_frames
from recipes.metrics.seen_rows import SeenRows
from recipes.report.doubtful import ranked_clips, ranked_frames, twins_of_rows
from tests.tiny_data import many_clips, write_data


def seen_as(log_odds: np.ndarray) -> SeenRows:
    """Return a run that saw each row once an epoch, in order; `log_odds` has shape (rows, epochs)."""
    rows, epochs = log_odds.shape
    return SeenRows(
        np.tile(np.arange(rows), epochs),
        np.repeat(np.arange(1, epochs + 1), rows),
        log_odds.T.flatten().astype(np.float32),
    )


ROWS = {
    "clip": ["a", "a", "a", "b", "b", "c", "d", "d"],
    "sample": [0, 1, 2, 0, 1, 7, 0, 1],
    "source_class": [*["0_safe_walkway_violation"] * 3, *["2_opened_panel_cover"] * 2, *["4_safe_walkway"] * 3],
    "response": ["UNSAFE", "UNSAFE", "UNSAFE", "UNSAFE", "SAFE", "SAFE", "SAFE", "SAFE"],
}
LOG_ODDS = np.array(
    [
        [-1, -2, -3],  # a 0: late to show what its clip shows
        [1, 5, 5],
        [-1, -1, 7],
        [2, 4, 4],
        [-1, -3, -5],  # b 1: flipped
        [1, 1, -1],  # c 7
        [-1, 3, 3],
        [9, 9, 9],
    ],
    dtype=float,
)


class Rows:
    """Columns by name, as a Dataset gives them."""

    def __getitem__(self, name: str) -> Any:
        return ROWS[name]


def test_frames_are_ranked_by_how_little_was_learned_and_how_much_less_than_of_their_clip() -> None:
    frames = ranked_frames(Rows(), seen_as(LOG_ODDS), [False] * 8)
    assert [(frame["rank"], frame["clip"], frame["sample"], frame["reason"]) for frame in frames] == [
        (1, "b", 1, "learned in no epoch; its clip's other frames say otherwise"),
        (2, "a", 0, "learned in no epoch; less sure than its clip's other frames"),
        (3, "d", 0, "learned in epoch 2; less sure than its clip's other frames"),
        (4, "c", 7, "learned and forgotten"),
        (5, "a", 2, "learned in epoch 3"),
        (6, "a", 1, "learned at once"),
        (7, "b", 0, "learned at once"),
        (8, "d", 1, "learned at once"),
    ]
    assert frames[0]["image"] == "frames/train/unsafe/b/0001.jpg", "where it lies, whatever its row says it is"
    assert (frames[0]["label"], frames[0]["log_odds"], frames[0]["margin"]) == ("SAFE", [-1, -3, -5], -4)
    assert frames[3]["image"] == "frames/train/safe/c/0007.jpg"


def test_clips_are_ranked_by_their_frames_together() -> None:
    clips = ranked_clips(ranked_frames(Rows(), seen_as(LOG_ODDS), [False] * 8))
    assert [(clip["rank"], clip["folder"], clip["labels"], clip["reason"]) for clip in clips] == [
        (1, "frames/train/unsafe/b", {"SAFE": 1, "UNSAFE": 1}, "1 of its 2 frames learned in no epoch"),
        (2, "frames/train/safe/c", {"SAFE": 1, "UNSAFE": 0}, "1 of its 1 frames learned and forgotten"),
        (3, "frames/train/unsafe/a", {"SAFE": 0, "UNSAFE": 3}, "1 of its 3 frames learned in no epoch"),
        (
            4,
            "frames/train/safe/d",
            {"SAFE": 2, "UNSAFE": 0},
            "1 of its 2 frames less sure than its clip's other frames",
        ),
    ]


def test_picture_under_both_labels_is_the_most_doubtful_of_all(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", many_clips())
    unsafe, *_, safe = split_frames(data)[TRAIN]
    assert (unsafe.response, safe.response) == ("UNSAFE", "SAFE")
    (data / safe.image).write_bytes((data / unsafe.image).read_bytes())
    source = open_dataset(str(data))
    rows = source.rows(TRAIN)
    twins = twins_of_rows(source)
    assert [row for row, twin in enumerate(twins) if twin] == [0, len(rows) - 1]
    frames = ranked_frames(rows, seen_as(np.full((len(rows), 2), 5.0)), twins)
    assert [frame["image"] for frame in frames[:2]] == [unsafe.image, safe.image]
    assert [frame["reason"] for frame in frames[:2]] == ["identical to one of the other label"] * 2
    assert {frame["reason"] for frame in frames[2:]} == {"learned at once"}
