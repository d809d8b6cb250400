import numpy as np
import pytest

from recipes.metrics import calibration, class_ids, compute_figures, confusion_matrix, mean_by_clip

# Four UNSAFE and three SAFE frames, worked out by hand: TP 3, FN 1, FP 1, TN 2.
TRUTH = [1, 1, 1, 1, 0, 0, 0]
P_UNSAFE = [0.9, 0.8, 0.5, 0.2, 0.7, 0.3, 0.1]
FIGURES = {
    "accuracy": 5 / 7,
    "precision": 3 / 4,
    "recall": 3 / 4,
    "f1": 3 / 4,
    "macro_f1": (3 / 4 + 2 / 3) / 2,
    "balanced_accuracy": (3 / 4 + 2 / 3) / 2,
    "mcc": (3 * 2 - 1 * 1) / (4 * 4 * 3 * 3) ** 0.5,
    "auroc": 9 / 12,  # of 12 pairs, 0.5 < 0.7, 0.2 < 0.7 and 0.2 < 0.3 are the wrong way round
    "average_precision": (1 + 1 + 3 / 4 + 4 / 6) / 4,
    "brier": (0.01 + 0.04 + 0.25 + 0.64 + 0.49 + 0.09 + 0.01) / 7,
    "calibration_error": (0.1 + 0.2 + 0.5 + 0.8 + 0.7 + 0.3 + 0.1) / 7,  # each frame is alone in its bin
}


def test_figures_of_a_table_worked_out_by_hand() -> None:
    figures = compute_figures(P_UNSAFE, TRUTH, threshold=0.5)
    assert set(figures) == set(FIGURES)
    assert figures == pytest.approx(FIGURES)


def test_threshold_moves_the_answers_and_not_the_ranking() -> None:
    strict = compute_figures(P_UNSAFE, TRUTH, threshold=0.75)
    assert (strict["recall"], strict["precision"]) == pytest.approx((2 / 4, 1.0))
    assert strict["auroc"] == pytest.approx(FIGURES["auroc"])


def test_what_one_class_does_not_define_is_none() -> None:
    figures = compute_figures([0.9, 0.2], [0, 0], threshold=0.5)
    undefined = {name for name, value in figures.items() if value is None}
    assert undefined == {"recall", "f1", "macro_f1", "balanced_accuracy", "mcc", "auroc", "average_precision"}
    assert figures["accuracy"] == 0.5


def test_calibration_takes_a_tenth_of_the_scale_together() -> None:
    """Three frames between 0.9 and 1, two of them UNSAFE, and one at 0.25."""
    p_unsafe, truth = np.array([0.92, 1.0, 0.96, 0.25]), np.array([1, 1, 0, 0])
    low, high = calibration(p_unsafe, truth)
    assert (low["from"], low["to"], low["n"], low["mean_p_unsafe"], low["unsafe_share"]) == (0.2, 0.3, 1, 0.25, 0.0)
    assert (high["n"], high["mean_p_unsafe"], high["unsafe_share"]) == pytest.approx((3, 0.96, 2 / 3))
    error = compute_figures(p_unsafe, truth, threshold=0.5)["calibration_error"]
    assert error == pytest.approx((0.25 + 3 * (0.96 - 2 / 3)) / 4)


@pytest.mark.parametrize(
    ("p_unsafe", "truth", "message"),
    [
        ([], [], "one at least"),
        ([0.5], [1, 0], "as many"),
        ([1.7], [1], "not between 0 and 1"),
        ([float("nan")], [1], "not between 0 and 1"),
        ([0.5], [2], "neither 0 nor 1"),
    ],
)
def test_unusable_figures_are_refused(p_unsafe: list[float], truth: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_figures(p_unsafe, truth, threshold=0.5)


def test_confusion_matrix_names_truth_first() -> None:
    answers = (np.array(P_UNSAFE) >= 0.5).astype(int)
    matrix = confusion_matrix(answers, np.array(TRUTH))
    assert matrix == {"SAFE": {"SAFE": 2, "UNSAFE": 1}, "UNSAFE": {"SAFE": 1, "UNSAFE": 3}}


def test_class_ids() -> None:
    assert class_ids(["SAFE", "UNSAFE"]).tolist() == [0, 1]


def test_mean_by_clip_keeps_apart_what_belongs_apart() -> None:
    means = mean_by_clip(np.array([0.25, 1.0, 0.75, 0.125]), np.array([1, 0, 1, 0]), ["b", "a", "b", "c"])
    assert means is not None
    p_unsafe, truth = means
    assert p_unsafe.tolist() == [1.0, 0.5, 0.125]
    assert truth.tolist() == [0, 1, 0]


def test_clip_of_both_labels_has_no_label() -> None:
    assert mean_by_clip(np.array([0.25, 0.5]), np.array([1, 0]), ["a", "a"]) is None


def test_mean_of_certain_frames_is_still_a_probability() -> None:
    means = mean_by_clip(np.ones(49), np.ones(49, dtype=int), ["a"] * 49)
    assert means is not None
    assert means[0].tolist() == [1.0]
