"""The demo's scenes: each shows its class's behaviour, and nothing but the behaviour tells the label."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from data_prep.demo.renderer import Renderer
from data_prep.demo.scenes import LOADS, sample_scene
from data_prep.demo.stage import HALL, PATH_EDGE_METRES, PRESS_SHOP, RAIL_Z, SECONDS_IN_VIEW, Scene
from data_prep.labels import SOURCE_CLASSES, UNSAFE

SEEDS = range(24)


def scene(digit: int, seed: int) -> Scene:
    return sample_scene(digit, np.random.default_rng([seed, digit]))


def empty(drawn: Scene) -> Scene:
    """The scene without its behaviour, and without whoever stands in the way of looking at it."""
    return replace(drawn, person=None, forklift=None, screen=None, bystanders=(), panel_open=False)


def pixels(drawn: Scene, seconds: float = 1.0) -> np.ndarray:
    return np.asarray(Renderer(drawn).frame(seconds)).astype(int)


def changed(drawn: Scene, other: Scene) -> np.ndarray:
    """Return which pixels differ between two scenes of the same noise, of shape (height, width)."""
    return np.abs(pixels(drawn) - pixels(other)).max(axis=2) > 25


@pytest.mark.parametrize("digit", [0, 4])
def test_walker_stays_on_or_off_the_path(digit: int) -> None:
    for seed in SEEDS:
        drawn = scene(digit, seed)
        assert drawn.person is not None and drawn.person.walks and not drawn.person.seated
        for seconds in (0.0, SECONDS_IN_VIEW):
            beside = abs(drawn.camera.metres_beside_path(*drawn.person.at(seconds)))
            assert beside == 0 if digit == 4 else beside > PATH_EDGE_METRES + 0.1


def test_some_walk_at_the_very_edge() -> None:
    beside = [abs(HALL.metres_beside_path(*scene(0, seed).person.at(0))) for seed in range(60)]  # type: ignore[union-attr]
    assert 3 <= sum(metres < 0.4 for metres in beside) <= 20
    assert max(beside) > 1.5


@pytest.mark.parametrize("digit", [0, 1, 3, 4, 5, 7])
def test_whoever_acts_is_in_view_all_the_time(digit: int) -> None:
    for seed in SEEDS:
        drawn = scene(digit, seed)
        actor = drawn.person or drawn.forklift
        assert actor is not None
        half = 0.3 if drawn.person else 1.75
        for seconds in (0.0, SECONDS_IN_VIEW):
            x, z = actor.at(seconds)
            for side, height in ((-half, 0.0), (half, 0.0), (0.0, 1.7)):
                u, v = drawn.camera.project(x + side, height, z)
                assert 0 <= u < 640 and 0 <= v < 360


def test_only_an_authorised_worker_wears_a_vest_at_the_press() -> None:
    for seed in SEEDS:
        for digit, vest in ((1, False), (5, True)):
            drawn = replace(scene(digit, seed), behaviour_from_seconds=0.0)
            assert drawn.person is not None and drawn.person.vest is vest
            red, green, blue = pixels(drawn)[changed(drawn, replace(drawn, person=None))].T
            lime = np.count_nonzero((green > 1.1 * red) & (red > 1.7 * blue))
            assert lime > 200 if vest else lime < 20


@pytest.mark.parametrize(("digit", "bins"), [(3, {3, 4, 5}), (7, {0, 1, 2})])
def test_forklift_carries_as_many_bins_as_its_class_says(digit: int, bins: set[int]) -> None:
    """A bin is seen: the orange that comes with the load covers as much as its size and distance say."""
    assert {load[0] for load in LOADS[digit]} == bins
    seen = set()
    for seed in SEEDS:
        drawn = replace(scene(digit, seed), behaviour_from_seconds=0.0, screen=None, bystanders=())
        assert drawn.forklift is not None and drawn.person is None and drawn.forklift.bins in bins
        seen.add(drawn.forklift.bins)
        unloaded = replace(drawn, forklift=replace(drawn.forklift, bins=0))
        width = 1.0 if drawn.forklift.stacks == 1 else 0.54
        bin_pixels = width * 0.42 * drawn.camera.pixels_per_metre(*drawn.forklift.at(1.0)) ** 2
        load = np.count_nonzero(changed(drawn, unloaded))
        assert load / bin_pixels == pytest.approx(drawn.forklift.bins, abs=0.8)
    assert seen == bins


def test_load_can_be_fixed() -> None:
    for load in range(12):
        drawn = sample_scene(7, np.random.default_rng(load), load=load)
        assert drawn.forklift is not None
        assert (drawn.forklift.bins, drawn.forklift.stacks) == LOADS[7][load % 6]


def test_open_panel_is_a_dark_cavity_in_the_upper_left() -> None:
    for seed in SEEDS:
        dark = {digit: np.count_nonzero(pixels(scene(digit, seed))[:180, :320].max(axis=2) < 30) for digit in (2, 6)}
        assert dark[2] > 5000 and dark[6] < 900


def test_panel_says_nothing_about_who_works_at_it() -> None:
    for digit in (1, 5):
        assert {scene(digit, seed).panel_open for seed in SEEDS} == {True, False}
        assert {sample_scene(digit, np.random.default_rng(seed), panel_open=True).panel_open for seed in SEEDS} == {
            True
        }


def test_behaviour_comes_into_view_when_it_is_marked() -> None:
    late = [
        drawn for digit in (0, 1, 3, 4, 5, 7) for seed in SEEDS if (drawn := scene(digit, seed)).behaviour_from_seconds
    ]
    assert 3 <= len(late) <= 25
    for drawn in late:
        before, after = drawn.behaviour_from_seconds - 0.01, drawn.behaviour_from_seconds
        nobody = replace(drawn, person=None, forklift=None)
        assert np.array_equal(pixels(drawn, before), pixels(nobody, before))
        assert not np.array_equal(pixels(drawn, after), pixels(nobody, after))
    assert {scene(digit, seed).behaviour_from_seconds for digit in (2, 6) for seed in SEEDS} == {0.0}


def test_bystanders_do_what_counts_for_no_class() -> None:
    kinds = set()
    for digit in range(8):
        for seed in SEEDS:
            drawn = scene(digit, seed)
            for person in drawn.bystanders:
                behind_rail = person.z > RAIL_Z
                on_path = all(drawn.camera.metres_beside_path(*person.at(seconds)) == 0 for seconds in (0.0, 8.0))
                assert person.seated or behind_rail or (person.walks and on_path)
                kinds.add("seated" if person.seated else "behind the rail" if behind_rail else "on the path")
    assert kinds == {"seated", "behind the rail", "on the path"}


def test_hard_cases_are_there() -> None:
    drawn = [scene(digit, seed) for digit in (3, 7) for seed in SEEDS]
    assert any(each.forklift and each.forklift.z > 11 for each in drawn)
    assert any(each.screen for each in drawn)
    assert {thing.kind for each in drawn for thing in each.clutter} == {"box", "bins", "coil"}
    assert len({each.noise_sigma for each in drawn}) > 2
    assert min(each.light.gains[1] for each in drawn) < 0.8 and max(each.light.gains[1] for each in drawn) > 1.05
    assert max(len(each.paint.worn_spots) for each in drawn) > 15


@pytest.mark.parametrize("camera", [HALL, PRESS_SHOP], ids=lambda camera: camera.name)
def test_background_does_not_tell_the_label(camera: object) -> None:
    """The nearest other clip's background, of 200, has its label hardly more often than by chance."""
    classes = [each for each in SOURCE_CLASSES if scene(each.digit, 0).camera is camera]
    scenes = [(each, scene(each.digit, seed)) for each in classes for seed in range(50)]
    looks = np.array([np.asarray(Renderer(empty(drawn)).frame(1.0).resize((32, 18))).ravel() for _, drawn in scenes])
    labels = np.array([each.label == UNSAFE for each, _ in scenes])
    found = cross_val_predict(KNeighborsClassifier(1), looks, labels, cv=LeaveOneOut())
    assert balanced_accuracy_score(labels, found) <= 0.60


def test_same_generator_state_draws_the_same_pixels() -> None:
    assert np.array_equal(pixels(scene(3, 1)), pixels(scene(3, 1)))
    assert not np.array_equal(pixels(scene(3, 1)), pixels(scene(3, 2)))
