import numpy as np
import pytest
from sklearn.metrics import f1_score

from data_prep.errors import InputError
from recipes.metrics.threshold import check_rule, choose_threshold, fixed_threshold

# Ranked: SAFE 0.1, UNSAFE 0.2, SAFE 0.3, UNSAFE 0.6, SAFE 0.7, UNSAFE 0.8, UNSAFE 0.9.
P_UNSAFE = np.array([0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.1])
TRUTH = np.array([1, 1, 0, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ("0.3", 0.3),
        ("recall>=0.5", 0.75),  # two of four
        ("recall>=0.51", 0.5),  # three of four, down to 0.6: 0.5 lies higher than half way to 0.3
        ("recall>=1", 0.15),
        ("macro_f1", 0.5),
    ],
)
def test_rule_chooses(rule: str, threshold: float) -> None:
    assert choose_threshold(rule, P_UNSAFE, TRUTH)[0] == pytest.approx(threshold)


def test_recall_is_reached_where_p_is_exactly_0() -> None:
    p_unsafe, truth = np.array([0.0, 0.4, 0.9, 0.2]), np.array([1, 1, 1, 0])
    assert choose_threshold("recall>=1.0", p_unsafe, truth)[0] == 0.0
    assert choose_threshold("recall>=0.6", p_unsafe, truth)[0] == pytest.approx(0.3)
    assert choose_threshold("recall>=1", np.array([0.0, 0.0]), np.array([1, 0]))[0] == 0.0


def test_recall_takes_the_highest_threshold_that_reaches_it() -> None:
    """Against all candidates that could part the frames, 0 to 1 among them; P may lie on either end."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        truth = np.r_[0, 1, rng.integers(0, 2, size=10)]
        p_unsafe, share = rng.integers(0, 11, size=12) / 10, rng.choice([0.3, 0.5, 0.9, 1.0])
        chosen = choose_threshold(f"recall>={share}", p_unsafe, truth)[0]
        reached = [(p_unsafe[truth == 1] >= each).mean() >= share for each in (chosen, np.nextafter(chosen + 0.1, 1))]
        assert reached == [True, False] or (chosen >= 0.9 and reached[0])


def test_choice_is_said_in_counts() -> None:
    assert choose_threshold("recall>=1", P_UNSAFE, TRUTH)[1] == (
        "recall>=1 on 7 validation frames: 4 of 4 UNSAFE frames found, 2 of 3 SAFE frames called UNSAFE"
    )
    assert choose_threshold("0.5", P_UNSAFE, TRUTH)[1] == "fixed"


def test_no_threshold_has_a_higher_macro_f1_than_the_chosen_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = np.r_[0, 1, rng.integers(0, 2, size=30)]
        p_unsafe = (0.5 * truth + rng.random(32)).round(1) / 1.5
        (threshold, _), grid = choose_threshold("macro_f1", p_unsafe, truth), np.linspace(0, 1, 101)
        reached, *others = (f1_score(truth, p_unsafe >= each, average="macro") for each in (threshold, *grid))
        assert reached >= max(others) - 1e-12


def test_frames_that_part_cleanly_keep_one_half() -> None:
    assert choose_threshold("macro_f1", np.array([0.01, 0.02, 0.97]), np.array([0, 0, 1]))[0] == 0.5
    assert choose_threshold("macro_f1", np.array([0.01, 0.02, 0.2]), np.array([0, 0, 1]))[0] == pytest.approx(0.11)


def test_fixed_threshold_needs_no_frames() -> None:
    assert [fixed_threshold(rule) for rule in ("0.5", "macro_f1", "recall>=0.9")] == [0.5, None, None]


@pytest.mark.parametrize("rule", ["0", "0.5", "1.0", "macro_f1", "recall>=0.98", "recall>=1"])
def test_rules_that_can_be_followed_pass(rule: str) -> None:
    check_rule(rule)


@pytest.mark.parametrize("rule", ["", "f1", "1.5", "-0.1", "nan", "recall>=", "recall>=0", "recall>=98", "recall>0.9"])
def test_other_rules_are_refused_by_name(rule: str) -> None:
    with pytest.raises(InputError, match=r"is none of: a number from 0 to 1, macro_f1, recall>=0\.98"):
        check_rule(rule)
