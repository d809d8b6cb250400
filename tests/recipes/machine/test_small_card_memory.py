"""The predictions against what bench_small_card measured: whole runs and answers under caps, layers that stream."""

import json
from typing import Any

import pytest

from data_prep.disk.byte_counts import GIB
from data_prep.files import PROJECT_ROOT
from recipes.machine.answering_memory import predict_answering
from recipes.machine.memory import WORKSPACE_BYTES, predict_memory
from tests.recipes.machine.test_answering_memory import VALUES
from tests.recipes.machine.test_memory import CONFIG, CONFIG_2B, settings_of

SMALL_CARD = json.loads((PROJECT_ROOT / "benchmarks/results/small_card_7b_h100.json").read_text())["arms"]


@pytest.mark.parametrize(
    ("recipe", "cap", "changed"),
    [
        ("2gb", "1.0", {"per_device_eval_batch_size": 2}),
        ("2gb", "1.6", {}),
        ("4gb", "3.2", {}),
        ("6gb", "5.2", {}),
        ("8gb", "7.2", {}),
    ],
)
def test_prediction_is_within_a_twentieth_of_a_whole_run_s_peak(recipe: str, cap: str, changed: dict[str, Any]) -> None:
    run = SMALL_CARD[f"capped_{cap}"]
    settings = settings_of(recipe, per_device_train_batch_size=run["micro_batch"], **changed)
    need = predict_memory(settings, CONFIG)
    assert need.card_gib == pytest.approx(run["peak_allocated_gib"], rel=0.05)


PLANNED = {
    name: row
    for name, row in json.loads((PROJECT_ROOT / "benchmarks/results/plan_h100.json").read_text())["arms"].items()
    if name.startswith("planned")
}


@pytest.mark.parametrize("arm", PLANNED)
def test_peak_of_a_plan_is_within_a_fortieth_of_the_predicted_one(arm: str) -> None:
    plan = PLANNED[arm]["plan"]
    need = predict_memory({**settings_of("8gb"), **plan}, CONFIG_2B if arm == "planned_2b" else CONFIG)
    assert need.training_gib == pytest.approx(PLANNED[arm]["peak_allocated_gib"], rel=0.025)


WORKSPACE_OF_ONE_THREAD = 32 * 2**20  # an H100's; no other thread went backward where speed was measured
SPEEDS: dict[str, tuple[str, dict[str, Any]]] = {
    "speed_computed": ("8gb", {}),
    "speed_computed_streamed": ("8gb", {"layers_on_host": "all"}),
    "speed_kept": ("6gb", {}),
    "speed_kept_streamed": ("6gb", {"layers_on_host": "all"}),
    "sixteen_bits_part": ("6gb", {"layers_on_host": "all", "load_in_4bit": False}),
}
ROWS = [(arm, row) for arm in SPEEDS for row in SMALL_CARD[arm]["rows"]]


@pytest.mark.parametrize(
    ("arm", "row"), ROWS, ids=[f"{arm}, {row['micro_batch']} frames, {row['recomputed']}" for arm, row in ROWS]
)
def test_prediction_is_within_a_twentieth_of_what_an_update_takes(arm: str, row: dict[str, Any]) -> None:
    recipe, changed = SPEEDS[arm]
    settings = settings_of(
        recipe,
        per_device_train_batch_size=row["micro_batch"],
        recomputed_layers=row["recomputed"],
        **changed,
    )
    other_workspace = (WORKSPACE_OF_ONE_THREAD - WORKSPACE_BYTES) / GIB
    predicted = predict_memory(settings, CONFIG).training_gib + other_workspace
    assert predicted == pytest.approx(row["peak_allocated_gib"], rel=0.05)


@pytest.mark.parametrize(
    ("cap", "on_host"), [("1.0", (28, 27)), ("1.6", (28, 11)), ("3.2", (18, 0)), ("5.2", (0, 0)), ("7.2", (0, 0))]
)
def test_prediction_is_within_a_fiftieth_of_what_answering_took_under_a_cap(cap: str, on_host: tuple[int, int]) -> None:
    need = predict_answering(
        VALUES, CONFIG, layers_on_host=on_host[0], vision_blocks_on_host=on_host[1], base_alone=False
    )
    assert need.card_gib == pytest.approx(SMALL_CARD[f"answered_{cap}"]["peak_allocated_gib"], rel=0.02)
