"""A machine that isn't here, as a command line describes it. No torch."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.disk.byte_counts import GIB
from data_prep.errors import InputError
from recipes.machine.cards import ASSUMED, CARDS, Card
from recipes.machine.known_bases import KNOWN_BASES
from recipes.machine.plan import ASSUMED_FRAMES, Machine, Plan
from recipes.machine.planner import plan_run
from recipes.model.base import find_config

CONTEXT_GIB = 0.4  # of a card, for CUDA itself and the screen; an 8 GB laptop was seen to have 7.6 free
HOST_GIB, HOST_SHARE = 16.0, 0.9  # where nothing is said; what the system leaves of it
RATES = {"tflops": ("flops", 1e12), "memory_gbs": ("memory", 1e9), "bus_gbs": ("bus", 1e9)}
_SIZES = ("card_gib", *RATES, "host_gib", "disk_gib", "frames")


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that describe a machine which isn't here to a script's command line."""
    group = parser.add_argument_group("plan for a machine that isn't here (nothing else is checked then)")
    group.add_argument("--card", metavar="NAME", help=f"one of {', '.join(CARDS)}")
    group.add_argument("--card-gib", type=float, metavar="GIB", help=f"its memory; alone: at the rates of an {ASSUMED}")
    group.add_argument("--tflops", type=float, help="its arithmetic: dense bf16 with sums in fp32")
    group.add_argument("--memory-gbs", type=float, metavar="GB/S", help="its memory's bandwidth")
    group.add_argument("--bus-gbs", type=float, metavar="GB/S", help="from the host to it")
    group.add_argument("--host-gib", type=float, metavar="GIB", help=f"host memory, {HOST_GIB:g} where it isn't said")
    group.add_argument("--disk-gib", type=float, metavar="GIB", help="free for kept vision features; else as needed")
    group.add_argument("--frames", type=int, metavar="N", help=f"to train on, {ASSUMED_FRAMES} where it isn't said")


def machine_of(args: argparse.Namespace) -> Machine | None:
    """Return the machine that the flags describe, None where none of them is given.

    Raises InputError for a card that is unknown, a size or rate that isn't above zero, and where no card is named.
    """
    given = {name: value for name in _SIZES if (value := getattr(args, name)) is not None}
    if args.card is None and not given:
        return None
    for name, value in given.items():
        if not value > 0:
            raise InputError(f"--{name.replace('_', '-')} {value:g} must be above 0")
    card = _card(args.card, given)
    host = given.get("host_gib", HOST_GIB)
    return Machine(
        card,
        card_bytes=(card.gib - CONTEXT_GIB) * GIB,
        host_bytes=HOST_SHARE * host * GIB,
        disk_bytes=given.get("disk_gib", float("inf")) * GIB,
    )


def _card(name: str | None, given: dict[str, float]) -> Card:
    if name is None and "card_gib" not in given:
        raise InputError("name a card: --card or --card-gib; the other flags are of no use without one")
    if name is not None and name not in CARDS:
        raise InputError(f"--card {name!r} is not one of {', '.join(CARDS)}; say --card-gib, and its rates if known")
    rates = {rate: given[flag] * unit for flag, (rate, unit) in RATES.items() if flag in given}
    card = CARDS[name or ASSUMED]
    return replace(card, gib=given.get("card_gib", card.gib), **rates)


def plan_elsewhere(settings: Mapping[str, Any], pinned: Mapping[str, Any], machine: Machine, *, frames: int) -> Plan:
    """Plan a run with these `settings` for that machine. Raises InputError where nothing fits, or the base is unknown.

    Of the base no more than its config.json is looked at; of the ones the project is made for, not even that.
    """
    name, revision = settings["model_name_or_path"], settings["model_revision"]
    config = find_config(name, revision) or KNOWN_BASES.get(name)
    if config is None:
        raise InputError(f"base model {name!r} isn't on this machine; name a folder with its config.json")
    return plan_run({**settings, "frames_an_update": update_of(settings)}, pinned, config, machine, frames=frames)


def update_of(settings: Mapping[str, Any]) -> int:
    """Return how many frames an update takes."""
    by_hand = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    return int(settings["frames_an_update"] or by_hand)
