"""Predicted seconds against those that were measured on an H100, whole and cut down to 8 of its multiprocessors."""

import json
from typing import Any

import pytest

from data_prep.files import PROJECT_ROOT
from recipes.machine.cards import CARDS, Card
from recipes.machine.training_time import COMPILE_SECONDS, KEEPING_SECONDS, TrainingTime, predict_time
from tests.recipes.machine.test_memory import CONFIG, settings_of

RESULTS = {
    name: json.loads((PROJECT_ROOT / f"benchmarks/results/{name}_7b_h100.json").read_text())["arms"]
    for name in ("small_card", "train")
}
PART = Card(gib=79, flops=58e12, memory=628e9, bus=27e9)
WHOLE = CARDS["H100 80GB HBM3"]
ON_THE_PART: dict[str, tuple[str, dict[str, Any]]] = {
    "speed_computed": ("8gb", {}),
    "speed_computed_streamed": ("8gb", {"layers_on_host": "all"}),
    "speed_kept": ("6gb", {}),
    "speed_kept_streamed": ("6gb", {"layers_on_host": "all"}),
    "sixteen_bits_part": ("6gb", {"layers_on_host": "all", "load_in_4bit": False}),
}
ROWS = [(arm, row) for arm in ON_THE_PART for row in RESULTS["small_card"][arm]["rows"]]
LARGE = RESULTS["train"]["80gb"]


def predicted(recipe: str, card: Card, frames: int, accumulation: int, **changed: Any) -> float:
    at_once = {"per_device_train_batch_size": frames, "gradient_accumulation_steps": accumulation}
    return predict_time(settings_of(f"qwen2vl_7b_{recipe}", **at_once, **changed), CONFIG, card).frame


@pytest.mark.parametrize(
    ("arm", "row"), ROWS, ids=[f"{arm}, {row['micro_batch']} frames, {row['recomputed']}" for arm, row in ROWS]
)
def test_part_of_a_card_takes_what_is_predicted(arm: str, row: dict[str, Any]) -> None:
    recipe, changed = ON_THE_PART[arm]
    found = predicted(
        recipe, PART, row["micro_batch"], row["accumulation"], recomputed_layers=row["recomputed"], **changed
    )
    assert found == pytest.approx(row["seconds_a_frame"], rel=0.08)


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
    (row,) = RESULTS["small_card"]["sixteen_bits"]["rows"]
    found = predicted("6gb", WHOLE, 4, 4, layers_on_host="all", load_in_4bit=False)
    assert found == pytest.approx(row["seconds_a_frame"], rel=0.05)


@pytest.mark.parametrize(("recipe", "frames"), [("8gb", 1), ("8gb", 4), ("6gb", 1), ("6gb", 4)])
def test_where_the_host_bounds_a_large_card_its_seconds_are_near(recipe: str, frames: int) -> None:
    """Its launches and its optimizer are as fast as its processor: two machines of one kind were a third apart."""
    measured = [row for row in RESULTS["train"][recipe] if row["micro_batch"] == frames]
    found = predicted(recipe, WHOLE, frames, 16 // frames)
    assert found == pytest.approx(1 / measured[0]["frames_per_second"], rel=0.25)


def test_what_comes_once_is_counted_once() -> None:
    time = predict_time(settings_of("qwen2vl_7b_80gb", cache_vision_features=True), CONFIG, WHOLE)
    assert time.once == COMPILE_SECONDS and KEEPING_SECONDS < time.filling < time.frame
    assert TrainingTime(frame=2.0, filling=1.0, once=60.0).run(100, 2.5) == 60 + 100 * (1 + 2.5 * 2)
    assert predict_time(settings_of("qwen2vl_7b_8gb"), CONFIG, WHOLE).filling == 0.0


def test_bus_bounds_where_it_is_slow() -> None:
    slow = Card(gib=8, flops=58e12, memory=628e9, bus=1e9)
    assert predicted("6gb", slow, 1, 16, layers_on_host="all") > 2 * 3.368
    assert predicted("6gb", slow, 16, 1, layers_on_host="all") == pytest.approx(
        predicted("6gb", slow, 16, 1) + 0.0, rel=0.001
    ), "16 frames take longer than their layers need to come"
