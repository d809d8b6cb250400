"""How doubtful a label is, on tables small enough to work out by hand."""

import numpy as np
import pytest

from recipes.metrics.doubt import STATISTICS, below_others, by_row, doubt_of_rows, later_margin
from recipes.metrics.seen_rows import SeenRows

NAN = np.nan
# Five rows of two clips, seen four times; the last was seen twice, as at the end of a run that ends within an epoch.
LOG_ODDS = np.array(
    [
        [-1.0, 1.0, 3.0, 5.0],  # learned
        [-1.0, -1.0, -3.0, -3.0],  # never
        [0.0, 2.0, -2.0, 4.0],  # forgotten once
        [1.0, 1.0, 1.0, 1.0],
        [2.0, 4.0, NAN, NAN],
    ]
)
CLIPS = np.array([0, 0, 0, 1, 1])


def test_sightings_become_a_table_of_rows_and_times() -> None:
    seen = SeenRows(np.array([2, 0, 2, 0, 3]), np.array([1, 1, 4, 5, 6]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    expected = [[2.0, 4.0], [NAN, NAN], [1.0, 3.0], [5.0, NAN]]
    np.testing.assert_array_equal(by_row(seen, 4), expected)
    assert by_row(SeenRows.joined([]), 2).shape == (2, 0)
    np.testing.assert_array_equal(by_row(seen, 5)[4], [NAN, NAN])


def test_later_half_counts_the_middle_one_too() -> None:
    assert later_margin(LOG_ODDS).tolist() == [4.0, -3.0, 1.0, 1.0, 4.0]
    assert later_margin(np.array([[-9.0, 1.0, 3.0]])).tolist() == [2.0]
    assert later_margin(np.array([[5.0]])).tolist() == [5.0]


def test_rows_are_compared_with_the_other_rows_of_their_clip() -> None:
    assert below_others(np.array([4.0, -3.0, 1.0, 1.0, 4.0]), CLIPS).tolist() == [-5.0, 5.5, -0.5, 3.0, -3.0]
    assert below_others(np.array([4.0, 1.0]), np.array([0, 1])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("later margin, and below its clip", [-9.0, 8.5, -1.5, 2.0, -7.0]),
        ("later margin", [-4.0, 3.0, -1.0, -1.0, -4.0]),
        ("mean margin", [-2.0, 2.0, -1.0, -1.0, -3.0]),
        ("mean P", [0.2635, 0.8419, 0.3795, 0.2689, 0.0686]),
        ("spread of P", [0.2878, 0.1108, 0.3407, 0.0, 0.0506]),
        ("forgetting", [0.0, 4.0, 1.0, 0.0, 0.0]),
        ("clip-relative mean margin", [-2.5, 3.5, -1.0, 2.0, -2.0]),
    ],
)
def test_statistics(name: str, expected: list[float]) -> None:
    assert STATISTICS[name](LOG_ODDS, CLIPS) == pytest.approx(expected, abs=1e-4)


def test_ranking_is_the_first_of_the_statistics() -> None:
    assert next(iter(STATISTICS.values())) is doubt_of_rows
