"""A run planned as sft_qwen2vl.py plans it, for a part of a large card and a cap: predicted and measured."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.measuring.arms import FEW
from benchmarks.measuring.card import allow_no_more_than
from benchmarks.measuring.part_of_card import part_of_card, use_part_of_card
from benchmarks.measuring.recipe_arguments import CONFIG, recipe_arguments
from benchmarks.measuring.training_speed import measure
from data_prep.disk.byte_counts import GIB
from recipes.machine.cards import Card
from recipes.machine.plan import Machine, Plan
from recipes.machine.plan_in_words import in_words
from recipes.machine.planner import plan_run
from recipes.machine.this_machine import measured_card
from recipes.model.base import find_base
from recipes.model.device import choose_device, free_room
from recipes.training.building import build_trainer, fill_vision_cache
from recipes.training.command_line import Settings, read_settings
from recipes.training.run import prepare_run

FRAMES, EPOCHS = 5000, 2  # of the run that is planned, about the public data set's; fewer are measured
DISK_BYTES = 100 * GIB
WARM_UP_FRAMES = 4


class Planned(NamedTuple):
    """A plan to measure: what the card has of its multiprocessors, its bus and its memory; lines that are pinned."""

    multiprocessors: int | None  # all
    cap_gib: float | None = None
    halved_bus: bool = False
    changed: Mapping[str, Any] = {}


def rates(multiprocessors: int | None, *, halved_bus: bool = False) -> dict[str, float]:
    """Return what a part of this card, or all of it, measures of itself as training begins."""
    if multiprocessors is not None:
        part_of_card(multiprocessors).set_context()
    card = measured_card(choose_device())
    return asdict(card) | {"bus": card.bus / (2 if halved_bus else 1)}


def planned_run(out: Path, planned: Planned, card: Card, *, blocks: int) -> dict[str, Any]:
    """Plan for a card of these rates under a cap, train so for a few updates, and return both sides."""
    if planned.cap_gib is not None:
        allow_no_more_than(planned.cap_gib)
    settings = settings_of(out, planned)
    base = find_base(settings.values["model_name_or_path"])
    plan = planned_for(settings, base.read_config(), card)
    run = prepare_run(settings.with_lines(plan.values), base)
    fill_vision_cache(run)
    filling = torch.cuda.max_memory_allocated() / GIB
    torch.cuda.reset_peak_memory_stats()
    trainer = build_trainer(run)
    loading = torch.cuda.max_memory_allocated() / GIB
    if planned.multiprocessors is not None:
        use_part_of_card(planned.multiprocessors, halved_bus=planned.halved_bus)
    values, update = plan.values, settings.values["frames_an_update"]
    accumulation = update // values["per_device_train_batch_size"]
    figures = measure(
        trainer,
        values["per_device_train_batch_size"],
        accumulation=accumulation,
        warm_up=warm_up(values["per_device_train_batch_size"], update, steady=values["cuda_graphs"]),
        updates_in_block=max(1, 16 // update) * (1 if planned.multiprocessors else 2),
        blocks=blocks,
    )
    times = [1 / rate for rate in figures["frames_per_second_range"]]
    return {
        **figures,
        "plan": plan.values,
        "said": in_words(plan, frames=FRAMES, epochs=EPOCHS),
        "card": asdict(card),
        "cap_gib": planned.cap_gib,
        "multiprocessors": planned.multiprocessors,
        "seconds_a_frame": 1 / figures["frames_per_second"],
        "seconds_range": sorted(times),
        "predicted_seconds": plan.time.frame,
        "predicted_gib": plan.need.training_gib,
        "filling_peak_gib": filling,
        "loading_peak_gib": loading,
    }


def settings_of(out: Path, planned: Planned) -> Settings:
    """Return the settings of a run on the benchmark's few frames, and on its base unless another is named."""
    changed = {
        "model_name_or_path": "base",
        "dataset": out / FEW,
        "output_dir": out / "runs" / "planned",
        "vision_cache": out / "vision_of_few",
        **planned.changed,
    }
    return read_settings(
        recipe_arguments(CONFIG, {**changed, "model_name_or_path": out / changed["model_name_or_path"]})
    )


def planned_for(settings: Settings, config: Mapping[str, Any], card: Card) -> Plan:
    """Plan a run of FRAMES frames for a card of these rates, its memory and the host's as they are here."""
    room = free_room(choose_device())
    machine = Machine(card, room["card_bytes"], room["host_bytes"], DISK_BYTES)
    plan = plan_run(settings.values, settings.pinned, config, machine, frames=FRAMES)
    for line in in_words(plan, frames=FRAMES, epochs=EPOCHS):
        print(f"plan: {line}", file=sys.stderr)
    return plan


def warm_up(frames: int, update: int, *, steady: bool) -> float:
    """Return how many updates, or which part of one, go before what is timed."""
    return 1.0 if steady or update == frames else max(1, WARM_UP_FRAMES // frames) * frames / update
