"""What is planned for machines: as fast as they bear, within what they have, and what is pinned stays."""

from dataclasses import replace
from typing import Any

import pytest

from data_prep.disk.byte_counts import GIB
from data_prep.errors import InputError
from recipes.layers.sizes import ALL
from recipes.machine.cards import CARDS, Card
from recipes.machine.memory import PROCESS_BYTES, RESERVED, predict_memory
from recipes.machine.plan import HOW, PLANNED, TABLES, Machine, Plan, epochs_of, frames_on_cpu
from recipes.machine.planner import SPARE_BYTES, plan_run
from recipes.machine.training_time import predict_time
from recipes.training.checks import check_placement
from recipes.training.command_line import read_settings
from tests.recipes.machine.test_memory import CONFIG, CONFIG_2B
from tests.recipes.machine.test_training_time import PART, WHOLE

SETTINGS = read_settings(["--config", "recipes/configs/qwen2vl_7b.yaml"])
FRAMES = 5000


def machine(gib: float, card: Card = PART, *, host: float = 24, disk: float = 100) -> Machine:
    return Machine(card, gib * GIB, host * GIB, disk * GIB)


def planned(on: Machine, config: dict[str, Any] = CONFIG, **pinned: Any) -> Plan:
    return plan_run({**SETTINGS.values, **pinned}, pinned, config, on, frames=FRAMES)


def told(plan: Plan) -> tuple[Any, ...]:
    values = plan.values
    recomputed = values["recomputed_layers"] if values["activation_checkpointing"] else "0"
    return values["per_device_train_batch_size"], recomputed, values["layers_on_host"], values["cache_vision_features"]


@pytest.mark.parametrize(
    ("gib", "pinned", "frames", "recomputed", "layers", "kept", "head"),
    [
        (1.0, {}, 1, "24", ALL, True, True),
        (1.6, {}, 4, "26", ALL, True, True),
        (3.2, {}, 2, "8", ALL, True, True),
        (5.2, {}, 2, "0", ALL, True, False),
        (7.2, {}, 4, "2", "27", True, True),
        (7.2, {"cache_vision_features": False}, 2, "0", "22", False, False),
    ],
)
def test_small_card_is_used_whole(
    gib: float, pinned: dict[str, Any], frames: int, recomputed: str, layers: str, kept: bool, head: bool
) -> None:
    plan = planned(machine(gib), **pinned)
    assert told(plan) == (frames, recomputed, layers, kept)
    assert [plan.values[name] for name in TABLES] == [True, head, True]
    assert not any(plan.values[name] for name in HOW)


def test_large_card_computes_all_of_it() -> None:
    values = planned(machine(78, WHOLE, host=100), cache_vision_features=False).values
    assert (values["per_device_train_batch_size"], values["activation_checkpointing"]) == (16, False)
    assert [values[name] for name in HOW] == [True, True, False]
    assert not values["head_on_host"] and not values["optimizer_on_host"]
    assert values["layers_on_host"] == values["vision_blocks_on_host"] == "0"
    uncompiled = planned(replace(machine(78, WHOLE, host=100), compiles=False)).values
    assert [uncompiled[name] for name in HOW] == [True, False, False]


SIZES = (1.2, 1.6, 2.4, 3.2, 4.4, 5.2, 7.2, 11, 15, 23, 47, 78)


@pytest.mark.parametrize(
    ("gib", "pinned"), [(0.9, {}), *((gib, kept) for gib in SIZES for kept in ({}, {"cache_vision_features": False}))]
)
def test_plan_fits_and_is_made_of_lines_that_agree(gib: float, pinned: dict[str, Any]) -> None:
    on = machine(gib)
    plan = planned(on, **pinned)
    assert set(plan.values) == set(PLANNED)
    settings = SETTINGS.with_lines({**plan.values, **pinned}).values
    check_placement(settings)
    assert plan.need == predict_memory(settings, CONFIG) and plan.time == predict_time(settings, CONFIG, on.card)
    assert RESERVED * plan.need.card_gib * GIB + SPARE_BYTES <= on.card_bytes
    assert plan.need.host_gib * GIB + PROCESS_BYTES <= on.host_bytes
    assert plan.values["per_device_train_batch_size"] * plan.values["gradient_accumulation_steps"] == 16


@pytest.mark.parametrize(("less", "more"), [(1.0, 1.6), (1.6, 3.2), (3.2, 5.2), (5.2, 7.2), (7.2, 15), (15, 78)])
def test_more_memory_is_never_slower(less: float, more: float) -> None:
    first, second = (planned(machine(gib)).time.run(FRAMES, 2) for gib in (less, more))
    assert second <= 1.01 * first


def test_no_way_by_hand_is_faster() -> None:
    """Every number of frames at once, recomputed and streamed layers on a card of 5.2 GiB, features kept."""
    on = machine(5.2)
    best = planned(on, cache_vision_features=True).time.frame
    tables = dict.fromkeys(TABLES, True)
    for frames in (1, 2, 4, 8, 16):
        for recomputed in (0, 7, 14, 21, 28):
            for layers in ("0", "14", ALL):
                lines = {
                    "per_device_train_batch_size": frames,
                    "gradient_accumulation_steps": 16 // frames,
                    "activation_checkpointing": recomputed > 0,
                    "recomputed_layers": str(recomputed or ALL),
                    "layers_on_host": layers,
                    "cache_vision_features": True,
                    **tables,
                }
                settings = {**SETTINGS.values, **lines}
                need = predict_memory(settings, CONFIG)
                if RESERVED * need.card_gib * GIB + SPARE_BYTES <= on.card_bytes:
                    assert best <= 1.01 * predict_time(settings, CONFIG, on.card).frame, lines


@pytest.mark.parametrize(
    "pinned",
    [
        {"per_device_train_batch_size": 2},
        {"gradient_accumulation_steps": 2},
        {"per_device_eval_batch_size": 3},
        {"layers_on_host": "5"},
        {"vision_blocks_on_host": ALL},
        {"recomputed_layers": "20"},
        {"activation_checkpointing": False},
        {"activation_checkpointing": True},
        {"embedding_on_host": False},
        {"head_on_host": False},
        {"optimizer_on_host": False},
        {"cache_vision_features": False},
        {"per_device_train_batch_size": 1, "recomputed_layers": ALL, "layers_on_host": "0"},
    ],
)
def test_what_is_pinned_stays(pinned: dict[str, Any]) -> None:
    values = planned(machine(7.2), **pinned).values
    assert {name: values[name] for name in pinned} == pinned


def test_host_s_memory_and_the_disk_bound_a_plan() -> None:
    free, scarce = planned(machine(7.2)), planned(machine(7.2, host=6))
    assert scarce.need.host_gib <= 2 < free.need.host_gib
    assert scarce.time.frame > 1.05 * free.time.frame
    full = planned(machine(7.2, disk=15))
    assert not full.values["cache_vision_features"]
    assert planned(machine(7.2, disk=17)).values["cache_vision_features"], "5,000 frames of 3.4 MB"


def test_features_are_kept_where_they_are_used_often_enough() -> None:
    once = plan_run({**SETTINGS.values, "num_train_epochs": 1}, {}, CONFIG, machine(23), frames=FRAMES)
    assert not once.values["cache_vision_features"]


@pytest.mark.parametrize(
    ("update", "at_once"), [(1, (1, 1)), (6, (6, 1)), (7, (7, 1)), (32, (16, 2)), (23, (1, 23)), (48, (12, 4))]
)
def test_update_is_of_as_many_frames_as_is_said(update: int, at_once: tuple[int, int]) -> None:
    settings = {**SETTINGS.values, "frames_an_update": update}
    values = plan_run(settings, {}, CONFIG, machine(78, WHOLE), frames=FRAMES).values
    assert (values["per_device_train_batch_size"], values["gradient_accumulation_steps"]) == at_once


@pytest.mark.parametrize(
    ("update", "pinned", "at_once"),
    [
        (16, {}, (8, 2)),
        (6, {}, (6, 1)),
        (23, {}, (1, 23)),
        (8, {"per_device_train_batch_size": 2}, (2, 4)),
        (32, {"gradient_accumulation_steps": 2}, (16, 2)),
    ],
)
def test_frames_at_once_on_a_cpu(update: int, pinned: dict[str, Any], at_once: tuple[int, int]) -> None:
    lines = frames_on_cpu(update, {**pinned, "head_on_host": False})
    assert (lines["per_device_train_batch_size"], lines["gradient_accumulation_steps"]) == at_once
    assert lines["head_on_host"] is False
    with pytest.raises(InputError, match="leave out some of per_device_train_batch_size"):
        frames_on_cpu(update, {"per_device_train_batch_size": update + 1})


@pytest.mark.parametrize(
    ("gib", "pinned"),
    [
        (78, {"cuda_graphs": True, "unpack_base": False, "activation_checkpointing": False}),
        (78, {"cuda_graphs": True, "load_in_4bit": False}),
        (78, {"per_device_train_batch_size": 32}),
    ],
)
def test_ways_that_would_not_be_chosen_can_be_pinned(gib: float, pinned: dict[str, Any]) -> None:
    settings = {**SETTINGS.values, "frames_an_update": 32, **pinned}
    lines = {name: value for name, value in pinned.items() if name in PLANNED}
    values = plan_run(settings, lines, CONFIG, machine(gib, WHOLE, host=100), frames=FRAMES).values
    assert {name: values[name] for name in lines} == lines


def test_graph_s_memory_is_counted_beside_what_else_runs() -> None:
    lines = {"cuda_graphs": True, "activation_checkpointing": False, "head_on_host": False, "optimizer_on_host": False}
    settings = {**SETTINGS.values, **lines, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    plain, graphed = (predict_memory({**settings, "cuda_graphs": graphs}, CONFIG) for graphs in (False, True))
    held = plain.card["kept activations"] + plain.card["one layer's backward pass"]
    assert sum(graphed.card.values()) - sum(plain.card.values()) == pytest.approx(held)
    assert sum(graphed.validating.values()) - sum(plain.validating.values()) > held


def test_updates_that_are_said_count_in_the_place_of_epochs() -> None:
    few = plan_run({**SETTINGS.values, "max_steps": 5}, {}, CONFIG, machine(7.2), frames=FRAMES)
    assert not few.values["cache_vision_features"], "80 frames are trained on, and 5,000 would be computed"
    assert epochs_of({**SETTINGS.values, "max_steps": 625}, FRAMES) == 2.0
    assert epochs_of(SETTINGS.values, FRAMES) == 2


@pytest.mark.parametrize("lines", [{"optim": "adamw_8bit"}, {"optim_args": "eps=1e-6"}])
def test_optimizer_that_the_host_has_not_stays_on_the_card(lines: dict[str, Any]) -> None:
    values = plan_run({**SETTINGS.values, **lines}, {}, CONFIG, machine(7.2), frames=FRAMES).values
    assert not values["optimizer_on_host"]
    check_placement({**SETTINGS.values, **lines, **values})


def test_other_bases_are_planned_by_their_sizes() -> None:
    values = planned(machine(3.2), CONFIG_2B).values
    assert values["per_device_train_batch_size"] == 4 and values["recomputed_layers"] == "5"
    sixteen = planned(machine(7.2), load_in_4bit=False)
    assert sixteen.values["layers_on_host"] == ALL and not sixteen.values["unpack_base"]


@pytest.mark.parametrize(
    ("on", "pinned", "said"),
    [
        (machine(0.7), {}, "the card has 0.7 GiB free, and about 0.9 are needed; take a lower max_pixels"),
        (machine(1.6, host=6), {}, "host memory has 6.0 GiB free, and about"),
        (
            machine(7.2),
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
            "no plan agrees with what the YAML and the flags say; leave out some of per_device_train_batch_size, grad",
        ),
        (machine(7.2), {"per_device_train_batch_size": 3}, "no plan agrees with"),
        (machine(7.2), {"unpack_base": True}, "the card has 7.2 GiB free, and about"),
        (machine(78), {"unpack_base": True, "layers_on_host": ALL}, "no plan agrees with"),
        (machine(78), {"cuda_graphs": True, "head_on_host": True}, "no plan agrees with"),
        (machine(7.2, disk=1), {"cache_vision_features": True}, "the disk has 1.0 GiB free, and 16.0 are needed"),
    ],
)
def test_what_is_short_is_told(on: Machine, pinned: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        planned(on, **pinned)
    assert str(error.value).startswith(said)


def test_known_cards_have_plans() -> None:
    hours = [planned(machine(card.gib - 0.4, card, host=14)).time.run(FRAMES, 2) / 3600 for card in CARDS.values()]
    assert hours == pytest.approx([2.64, 4.06, 3.25, 0.11], abs=0.01)
