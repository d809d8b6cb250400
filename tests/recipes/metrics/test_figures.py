import numpy as np
import pytest
from sklearn import metrics as sk

from recipes.metrics.calibration import calibration
from recipes.metrics.class_ids import class_ids, confusion_matrix, mean_by_clip
from recipes.metrics.safety_metric import compute_figures

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


def frames_of(unsafe: int, safe: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(unsafe)
    truth = np.r_[np.ones(unsafe, dtype=int), np.zeros(safe, dtype=int)]
    return (0.3 * truth + 0.7 * rng.random(len(truth))).round(2), truth


def test_figures_at_a_prior_are_scikit_learn_s_with_weights() -> None:
    p_unsafe, truth = frames_of(80, 20)
    answers, weights = (p_unsafe >= 0.4).astype(int), np.where(truth == 1, 0.02 / 80, 0.98 / 20)
    weighed = {"sample_weight": weights}
    bins = [np.flatnonzero((p_unsafe * 10).astype(int) == each) for each in range(10)]
    expected = {
        "accuracy": sk.accuracy_score(truth, answers, **weighed),
        "precision": sk.precision_score(truth, answers, **weighed),
        "recall": sk.recall_score(truth, answers, **weighed),
        "f1": sk.f1_score(truth, answers, **weighed),
        "macro_f1": sk.f1_score(truth, answers, average="macro", **weighed),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, answers, **weighed),
        "mcc": sk.matthews_corrcoef(truth, answers, **weighed),
        "auroc": sk.roc_auc_score(truth, p_unsafe, **weighed),
        "average_precision": sk.average_precision_score(truth, p_unsafe, **weighed),
        "brier": sk.brier_score_loss(truth, p_unsafe, **weighed),
        "calibration_error": sum(abs((weights[rows] * (p_unsafe - truth)[rows]).sum()) for rows in bins),
    }
    found = compute_figures(p_unsafe, truth, threshold=0.4, prior=0.02)
    assert found == pytest.approx(expected, rel=0, abs=1e-12)
    plain = compute_figures(p_unsafe, truth, threshold=0.4)
    same = {name for name in found if found[name] == pytest.approx(plain[name], abs=1e-12)}
    assert same == {"recall", "balanced_accuracy", "auroc"}, "these alone don't depend on the share"


def test_figures_at_a_prior_are_those_of_frames_repeated_until_they_have_that_share() -> None:
    p_unsafe, truth = frames_of(30, 20)
    rows = np.r_[np.arange(30), np.tile(np.arange(30, 50), 6)]  # 30 UNSAFE and 120 SAFE
    weighed = compute_figures(p_unsafe, truth, threshold=0.4, prior=0.2)
    assert weighed == pytest.approx(compute_figures(p_unsafe[rows], truth[rows], threshold=0.4), rel=0, abs=1e-12)
    for found, repeated in zip(
        calibration(p_unsafe, truth, prior=0.2), calibration(p_unsafe[rows], truth[rows]), strict=True
    ):
        assert found["unsafe_share"] == pytest.approx(repeated["unsafe_share"])
        assert found["mean_p_unsafe"] == pytest.approx(repeated["mean_p_unsafe"])
        assert found["n"] <= repeated["n"], "a count is of the frames that are there"


@pytest.mark.parametrize("label", [0, 1])
def test_prior_leaves_recall_alone_to_one_label(label: int) -> None:
    figures = compute_figures([0.9, 0.2], [label, label], threshold=0.5, prior=0.3)
    assert {name: value for name, value in figures.items() if value is not None} == ({"recall": 0.5} if label else {})


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
