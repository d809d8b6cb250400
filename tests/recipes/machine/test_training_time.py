"""Predicted seconds against those that were measured on an H100, whole and cut down to some of its multiprocessors."""

import json
from typing import Any

import pytest

from benchmarks.measuring.recipe_arguments import fixed_settings
from data_prep.files import PROJECT_ROOT
from recipes.machine.cards import CARDS, Card
from recipes.machine.training_time import COMPILE_SECONDS, KEEPING_SECONDS, TrainingTime, predict_time
from tests.recipes.machine.test_memory import CONFIG, CONFIG_2B, settings_of

RESULTS = {
    name: json.loads((PROJECT_ROOT / f"benchmarks/results/{name}.json").read_text())["arms"]
    for name in ("small_card_7b_h100", "train_7b_h100", "plan_h100")
}
# As the part measured itself when plans were made for it: the rates by which their recorded predictions come out.
PART = Card(gib=79, flops=53.7348e12, memory=610.183e9, bus=26.8323e9)
WHOLE = CARDS["H100 80GB HBM3"]
LARGE = RESULTS["train_7b_h100"]["80gb"]
PLANNED = {name: row for name, row in RESULTS["plan_h100"].items() if name.startswith("planned")}
ON_THE_PART = [name for name, row in PLANNED.items() if row["multiprocessors"] == 8]


def predicted(recipe: str, card: Card, frames: int, accumulation: int, **changed: Any) -> float:
    at_once = {"per_device_train_batch_size": frames, "gradient_accumulation_steps": accumulation}
    return predict_time(settings_of(recipe, **at_once, **changed), CONFIG, card).frame


@pytest.mark.parametrize("arm", ON_THE_PART)
def test_plan_takes_as_long_on_a_part_of_a_card_as_predicted(arm: str) -> None:
    """The 2B's layers are so small that a part of the card waits for their launches, which a prediction knows less."""
    row, config, within = PLANNED[arm], CONFIG, 0.05
    if arm == "planned_2b":
        config, within = CONFIG_2B, 0.15
    found = predict_time({**fixed_settings("8gb"), **row["plan"]}, config, PART).frame
    assert found == pytest.approx(row["predicted_seconds"], rel=1e-4), "what is recorded is another version's"
    assert found == pytest.approx(row["seconds_a_frame"], rel=within)


@pytest.mark.parametrize("arm", PLANNED)
def test_what_a_machine_was_told_as_it_was_measured_was_within_a_fifth(arm: str) -> None:
    assert PLANNED[arm]["predicted_seconds"] == pytest.approx(PLANNED[arm]["seconds_a_frame"], rel=0.2)


def test_plan_of_the_whole_card_takes_as_long_as_predicted() -> None:
    (row,) = RESULTS["plan_h100"]["whole_card"]["now"]
    found = predict_time({**fixed_settings("80gb"), **row["plan"]}, CONFIG, WHOLE).frame
    assert found == pytest.approx(row["seconds_a_frame"], rel=0.15)


@pytest.mark.parametrize(
    ("arm", "frames", "changed"),
    [
        ("computed", 16, {}),
        ("computed_1", 1, {}),
        ("computed_1_graph", 1, {"cuda_graphs": True}),
        ("cached", 16, {"cache_vision_features": True}),
        ("cached_1_graph", 1, {"cuda_graphs": True, "cache_vision_features": True}),
    ],
)
def test_large_card_takes_what_is_predicted(arm: str, frames: int, changed: dict[str, Any]) -> None:
    found = predicted("80gb", WHOLE, frames, 1, **changed)
    assert found == pytest.approx(1 / LARGE[arm]["frames_per_second"], rel=0.15)


def test_layers_in_16_bits_come_over_the_bus_of_the_whole_card_as_fast_as_predicted() -> None:
    (row,) = RESULTS["small_card_7b_h100"]["sixteen_bits"]["rows"]
    found = predicted("6gb", WHOLE, 4, 4, layers_on_host="all", load_in_4bit=False)
    assert found == pytest.approx(row["seconds_a_frame"], rel=0.05)


@pytest.mark.parametrize(("recipe", "frames"), [("8gb", 1), ("8gb", 4), ("6gb", 1), ("6gb", 4)])
def test_where_the_host_bounds_a_large_card_its_seconds_are_near(recipe: str, frames: int) -> None:
    """Its launches and its optimizer are as fast as its processor: two machines of one kind were a third apart."""
    measured = [row for row in RESULTS["train_7b_h100"][recipe] if row["micro_batch"] == frames]
    found = predicted(recipe, WHOLE, frames, 16 // frames)
    assert found == pytest.approx(1 / measured[0]["frames_per_second"], rel=0.25)


def test_unpacking_and_elementwise_kernels_are_faster_than_the_libraries_were() -> None:
    """The rows that an earlier version took on the same part, without kernels of its own."""
    for arm, recipe in (("speed_computed", "8gb"), ("speed_kept", "6gb")):
        for row in RESULTS["small_card_7b_h100"][arm]["rows"]:
            found = predicted(recipe, PART, row["micro_batch"], row["accumulation"])
            assert 0.72 < found / row["seconds_a_frame"] < 0.97


def test_what_comes_once_is_counted_once() -> None:
    time = predict_time(settings_of("80gb", cache_vision_features=True), CONFIG, WHOLE)
    assert time.once == COMPILE_SECONDS and time.filling > KEEPING_SECONDS
    assert TrainingTime(frame=2.0, filling=1.0, once=60.0).run(100, 2.5) == 60 + 100 * (1 + 2.5 * 2)
    assert predict_time(settings_of("8gb"), CONFIG, WHOLE).filling == 0.0


def test_bus_bounds_where_it_is_slow() -> None:
    slow = Card(gib=8, flops=58e12, memory=628e9, bus=1e9)
    assert predicted("6gb", slow, 1, 16, layers_on_host="all") > 2 * 3.368
    assert predicted("6gb", slow, 16, 1, layers_on_host="all") == pytest.approx(
        predicted("6gb", slow, 16, 1), rel=0.001
    ), "16 frames take longer than their layers need to come"
