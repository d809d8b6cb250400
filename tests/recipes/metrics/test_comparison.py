import numpy as np
import pytest

from recipes.metrics.comparison import mcnemar


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (0, 6, 2 / 64), (8, 1, 2 * (1 + 9) / 512)],
)
def test_mcnemar_counts_where_they_differ(only_first: int, only_second: int, p_value: float) -> None:
    right = np.array([True] * only_first + [False] * only_second + [True, False])
    other = np.array([False] * only_first + [True] * only_second + [True, False])
    assert mcnemar(right, other) == pytest.approx(
        {"only_first_right": only_first, "only_second_right": only_second, "p_value": p_value}
    )
