"""The bootstrap against scikit-learn on rows really drawn anew, and its coverage where the truth is known."""

import numpy as np
import pytest

from recipes.metrics.figures import resampled_figures
from recipes.metrics.intervals import at_most_without_error, interval
from recipes.metrics.judged import Sample
from recipes.metrics.resampling import Resamples, Scores, draw_clips
from recipes.metrics.safety_metric import compute_figures

DRAWN = [[1, 0, 0, 3], [0, 2, 2, 0], [1, 1, 1, 1]]


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


def test_clips_are_drawn_as_they_always_were() -> None:
    """Or the intervals of a report would change without a reason."""
    assert draw_clips(4, resamples=3).tolist() == DRAWN
    assert draw_clips(10_000, resamples=2).sum(axis=1).tolist() == [10_000, 10_000]


def mixed(seed: int) -> Scores:
    """Clips of several lengths, some with frames of both labels, in no order."""
    rng = np.random.default_rng(seed)
    clips = rng.integers(0, 60, size=400)
    truth = (clips % 2 ^ (rng.random(400) < 0.1)).astype(int)
    return Scores.of(rng.random(400).round(1 + seed % 3), truth, clips)


@pytest.mark.parametrize("prior", [None, 0.02, 0.9])
@pytest.mark.parametrize("scores", [simulated(0), mixed(1), mixed(2)], ids=["whole clips", "ties", "few ties"])
def test_every_figure_of_a_resample_is_that_of_its_rows(scores: Scores, prior: float | None) -> None:
    """With a prior the share of UNSAFE frames is that in each resample, whatever was drawn."""
    times = draw_clips(scores.clips, resamples=12)
    found = resampled_figures(Resamples(scores, times, prior), 0.4)
    for number, each in enumerate(times):
        expected = compute_figures(*drawn(scores, each), threshold=0.4, prior=prior)
        assert {name: values[number] for name, values in found.items()} == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("prior", [None, 0.3])
@pytest.mark.parametrize("only", [0, 1])
def test_resample_of_one_label_defines_what_metrics_defines(only: int, prior: float | None) -> None:
    scores = simulated(1)
    times = np.array([[int(scores.truth[6 * clip] == only) for clip in range(60)]])
    found = {name: values[0] for name, values in resampled_figures(Resamples(scores, times, prior), 0.5).items()}
    expected = compute_figures(*drawn(scores, times[0]), threshold=0.5, prior=prior)
    assert {name for name, value in found.items() if np.isnan(value)} == {
        name for name, value in expected.items() if value is None
    }
    assert {name: value for name, value in found.items() if not np.isnan(value)} == pytest.approx(
        {name: value for name, value in expected.items() if value is not None}
    )


def test_parts_of_the_resamples_join_seamlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, times = simulated(2), draw_clips(60, resamples=100)
    whole = resampled_figures(Resamples(scores, times), 0.5)
    monkeypatch.setattr("recipes.metrics.resampling._CELLS_AT_ONCE", 7 * 360)
    parted = resampled_figures(Resamples(scores, times), 0.5)
    for name, values in whole.items():
        np.testing.assert_allclose(parted[name], values, rtol=0, atol=1e-12)


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
    found = Sample.of(scores, threshold=0.5).intervals()
    assert found == Sample.of(scores, threshold=0.5).intervals()
    assert found.keys() == figures.keys()
    for name, bounds in found.items():
        figure = figures[name]
        assert bounds is not None and figure is not None
        assert bounds[0] < figure < bounds[1], name


def test_figure_that_few_resamples_define_has_no_interval() -> None:
    assert interval(np.array([0.5, np.nan, np.nan])) is None
    assert interval(np.array([0.5, 0.5, np.nan])) == (0.5, 0.5)
    one_label = Scores(np.array([0.2, 0.9]), np.array([1, 1]), np.array([0, 1]))
    assert Sample.of(one_label, threshold=0.5).intervals()["auroc"] is None


def intervals_of(clips: list[str], truth: list[int], p_unsafe: list[float], prior: float | None = None) -> set[str]:
    """Return which figures have an interval."""
    sample = Sample.of(Scores.of(np.array(p_unsafe), np.array(truth), clips), threshold=0.5, prior=prior)
    assert sample.above(sample)["brier"] is None or (sample.above(sample)["brier"]["interval"] is None) == (
        sample.intervals()["brier"] is None
    )
    return {name for name, bounds in sample.intervals().items() if bounds}


def test_one_clip_gives_no_interval() -> None:
    """Drawn anew it is the same clip, and the interval would have no width."""
    assert intervals_of(["a", "a", "a"], [1, 1, 1], [0.9, 0.2, 0.6]) == set()
    assert intervals_of(["a", "a", "a"], [1, 0, 1], [0.9, 0.2, 0.6]) == set()


def test_one_clip_of_a_label_gives_no_interval_to_what_needs_the_label() -> None:
    one_unsafe = (["a", "a", "b", "c", "d"], [1, 1, 0, 0, 0], [0.9, 0.2, 0.6, 0.3, 0.1])
    assert intervals_of(*one_unsafe) == {"accuracy", "precision", "brier", "calibration_error"}
    assert intervals_of(*one_unsafe, prior=0.1) == set()
    one_safe = (["a", "b", "c", "d"], [1, 1, 1, 0], [0.9, 0.2, 0.6, 0.3])
    assert intervals_of(*one_safe) == {"accuracy", "precision", "recall", "f1", "brier", "calibration_error"}
    assert intervals_of(*one_safe, prior=0.1) == {"recall"}


def test_precision_of_one_clip_s_alarms_has_no_interval() -> None:
    without = {"accuracy", "recall", "f1", "macro_f1", "balanced_accuracy", "mcc", "auroc", "average_precision"}
    without |= {"brier", "calibration_error"}
    assert intervals_of(list("aabcd"), [1, 1, 1, 0, 0], [0.9, 0.8, 0.4, 0.3, 0.1]) == without


def test_rule_of_three_bounds_what_was_never_seen() -> None:
    """Of 60 clips without an error: if 3/60 of clips erred, none among 60 would have a chance of one in twenty."""
    assert at_most_without_error(60) == 3 / 60
    assert (1 - at_most_without_error(60)) ** 60 == pytest.approx(0.05, abs=0.005)
    assert [at_most_without_error(clips) for clips in (1, 3)] == [1.0, 1.0]


def test_difference_of_a_model_and_itself_is_nothing() -> None:
    sample = Sample.of(simulated(4), threshold=0.5)
    assert {each["interval"] for each in sample.above(sample).values()} == {(0.0, 0.0)}


@pytest.mark.parametrize("prior", [None, 0.1])
def test_another_threshold_is_as_if_it_had_been_asked_for_at_once(prior: float | None) -> None:
    moved, asked = (
        Sample.of(simulated(8), threshold=0.5, prior=prior).at(0.3),
        Sample.of(simulated(8), threshold=0.3, prior=prior),
    )
    assert moved.results() == asked.results()


def test_paired_difference_is_narrower_than_two_intervals_apart() -> None:
    """Two models that err on the same clips: each alone is uncertain, which is better isn't."""
    better = simulated(5)
    worse = Scores((0.9 * better.p_unsafe).clip(0, 1), better.truth, better.clip_of_row)
    one, other = (Sample.of(each, threshold=0.5) for each in (better, worse))
    difference, alone = one.above(other)["brier"]["interval"], one.intervals()["brier"]
    assert difference is not None and alone is not None
    assert difference[1] - difference[0] < (alone[1] - alone[0]) / 2


def test_only_the_same_frames_are_paired() -> None:
    with pytest.raises(ValueError, match="not of the same frames"):
        Sample.of(simulated(6), threshold=0.5).above(Sample.of(simulated(7), threshold=0.5))
