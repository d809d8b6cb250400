"""The bootstrap against scikit-learn on rows really drawn anew, and its coverage where the truth is known."""

import numpy as np
import pytest

from recipes.intervals import (
    Scores,
    draw_clips,
    interval,
    intervals,
    mcnemar,
    paired_intervals,
    resampled_figures,
)
from recipes.metrics import compute_figures


def simulated(seed: int, *, clips: int = 60, frames: int = 6, skill: float = 1.0) -> Scores:
    """Frames that lean to their clip's own side: near-copies, as in the data. P is rounded, so that values tie."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, size=clips)
    of_clip = skill * (2 * truth - 1) + 1.5 * rng.normal(size=clips)
    logits = np.repeat(of_clip, frames) + 0.4 * rng.normal(size=clips * frames)
    p_unsafe = (1 / (1 + np.exp(-logits))).round(2)
    return Scores(p_unsafe, np.repeat(truth, frames), np.repeat(np.arange(clips), frames))


def drawn(scores: Scores, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return P(UNSAFE) and class ids of the rows of a resample, each as often as its clip was drawn."""
    rows = np.repeat(np.arange(len(scores.truth)), times[scores.clip_of_row])
    return scores.p_unsafe[rows], scores.truth[rows]


def test_every_figure_of_a_resample_is_that_of_its_rows() -> None:
    scores = simulated(0)
    times = draw_clips(60, resamples=12)
    assert (times.sum(axis=1) == 60).all()
    found = resampled_figures(scores, times, threshold=0.4)
    for number, each in enumerate(times):
        expected = compute_figures(*drawn(scores, each), threshold=0.4)
        assert {name: values[number] for name, values in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("only", [0, 1])
def test_resample_of_one_label_defines_what_metrics_defines(only: int) -> None:
    scores = simulated(1)
    times = np.array([[int(scores.truth[6 * clip] == only) for clip in range(60)]])
    found = {name: values[0] for name, values in resampled_figures(scores, times, threshold=0.5).items()}
    expected = compute_figures(*drawn(scores, times[0]), threshold=0.5)
    assert {name for name, value in found.items() if np.isnan(value)} == {
        name for name, value in expected.items() if value is None
    }
    assert {name: value for name, value in found.items() if not np.isnan(value)} == pytest.approx(
        {name: value for name, value in expected.items() if value is not None}
    )


def test_parts_of_the_resamples_join_seamlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = intervals(simulated(2), threshold=0.5)
    monkeypatch.setattr("recipes.intervals._CELLS_AT_ONCE", 7 * 360)
    assert intervals(simulated(2), threshold=0.5) == whole


def test_interval_covers_the_true_accuracy_as_often_as_it_says_and_a_frame_bootstrap_does_not() -> None:
    truths = simulated(999, clips=200_000, frames=1)
    true_accuracy = float(((truths.p_unsafe >= 0.5) == truths.truth).mean())
    covered = {"clips": 0, "frames": 0}
    widths: dict[str, list[float]] = {"clips": [], "frames": []}
    for seed in range(200):
        scores = simulated(seed)
        frames = np.arange(len(scores.truth))
        for unit, each in (("clips", scores), ("frames", Scores(scores.p_unsafe, scores.truth, frames))):
            times = draw_clips(int(each.clip_of_row.max()) + 1, resamples=400, seed=seed)
            right = (each.p_unsafe >= 0.5) == each.truth
            count = np.bincount(each.clip_of_row)
            accuracy = times @ np.bincount(each.clip_of_row, weights=right) / (times @ count)
            found = interval(accuracy)
            assert found is not None
            covered[unit] += found[0] <= true_accuracy <= found[1]
            widths[unit].append(found[1] - found[0])
    assert 0.90 <= covered["clips"] / 200 <= 0.99
    assert covered["frames"] / 200 < 0.75
    assert np.median(widths["clips"]) > 1.8 * np.median(widths["frames"])


def test_interval_holds_the_figure_and_is_the_same_every_time() -> None:
    scores = simulated(3)
    figures = compute_figures(scores.p_unsafe, scores.truth, threshold=0.5)
    found = intervals(scores, threshold=0.5)
    assert found == intervals(scores, threshold=0.5)
    assert found.keys() == figures.keys()
    for name, bounds in found.items():
        figure = figures[name]
        assert bounds is not None and figure is not None
        assert bounds[0] < figure < bounds[1], name


def test_figure_that_few_resamples_define_has_no_interval() -> None:
    assert interval(np.array([0.5, np.nan, np.nan])) is None
    assert interval(np.array([0.5, 0.5, np.nan])) == (0.5, 0.5)
    one_label = Scores(np.array([0.2, 0.9]), np.array([1, 1]), np.array([0, 1]))
    assert intervals(one_label, threshold=0.5)["auroc"] is None


def test_difference_of_a_model_and_itself_is_nothing() -> None:
    scores = simulated(4)
    same = paired_intervals(scores, scores, threshold=0.5, other_threshold=0.5)
    assert set(same.values()) == {(0.0, 0.0)}


def test_paired_difference_is_narrower_than_two_intervals_apart() -> None:
    """Two models that err on the same clips: each alone is uncertain, which is better isn't."""
    better = simulated(5)
    worse = Scores((0.9 * better.p_unsafe).clip(0, 1), better.truth, better.clip_of_row)
    difference = paired_intervals(better, worse, threshold=0.5, other_threshold=0.5)["brier"]
    alone = intervals(better, threshold=0.5)["brier"]
    assert difference is not None and alone is not None
    assert difference[1] - difference[0] < (alone[1] - alone[0]) / 2


def test_only_the_same_frames_are_paired() -> None:
    with pytest.raises(ValueError, match="not of the same frames"):
        paired_intervals(simulated(6), simulated(7), threshold=0.5, other_threshold=0.5)


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
