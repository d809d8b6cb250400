"""A run's settings with what its YAML leaves to the machine: what lies where, how many frames are on it at once."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_prep.files import from_root
from data_prep.hub.source import FramesSource
from recipes.machine.placed_weights import adapter_weights
from recipes.machine.plan import AT_ONCE, PLANNED, Machine, epochs_of, frames_on_cpu, least_of
from recipes.machine.plan_in_words import in_words
from recipes.machine.planner import plan_run
from recipes.model.base import BaseModel
from recipes.ranks.joining import said_by_first
from recipes.ranks.place import here, is_alone, is_first
from recipes.ranks.shares import at_once_of, frames_a_process
from recipes.training.checks import check_placement
from recipes.training.command_line import Settings
from recipes.training.free_settings import KEPT_BY_A_RUN
from recipes.training.run_folder import RunFolder

if TYPE_CHECKING:
    import torch

FP32_BYTES = 4  # of a gradient, which is in 16 bits at the least


def planned(settings: Settings, base: BaseModel, source: FramesSource, folder: RunFolder) -> Settings:
    """Return a run's settings with the lines that its YAML leaves to the machine, which are told in words.

    Where `frames_an_update` isn't set none are. A run that goes on keeps what it can't change, a finished one all. Of
    several processes each takes its share of an update, by one plan, for the least that any of them has of anything.
    Raises InputError where nothing fits, and where lines contradict each other.
    """
    values = settings.values
    if values["frames_an_update"] is None:
        return settings
    begun, is_finished = _found_by_first(folder)
    if is_finished:
        return settings.with_lines({name: begun[name] for name in PLANNED if name in begun})
    import torch

    from recipes.model.device import choose_device

    ranks, frames = here().ranks, source.frames_beside_test
    share = frames_a_process(values["frames_an_update"], ranks)
    pinned = {**{name: begun[name] for name in KEPT_BY_A_RUN if name in begun}, **settings.pinned}
    pinned = pinned if is_alone() else _pinned_for_one(pinned, values["frames_an_update"], share)
    device = torch.device("cpu") if values["use_cpu"] else choose_device()
    if device.type == "cpu":
        return _checked(settings.with_lines(_for_all(frames_on_cpu(share, pinned))))
    machine = _least_machine(device, settings, base, kept=min(frames, _kept_features(settings, base, source)))
    plan = plan_run({**values, "frames_an_update": share}, pinned, base.read_config(), machine, frames=frames)
    epochs = epochs_of(values, frames)
    for line in in_words(plan, frames=frames // ranks, epochs=epochs, kept=machine.kept // ranks):
        print(f"plan: {line}", file=sys.stderr)
    if ranks > 1:
        print(f"plan: so much for each of {ranks} processes, which share {frames} frames", file=sys.stderr)
    return _checked(settings.with_lines(_for_all(plan.values)))


def _found_by_first(folder: RunFolder) -> tuple[dict[str, Any], bool]:
    """Return the settings that a run began with, and whether it is finished, as the first process finds its folder."""
    return said_by_first((folder.begun(), folder.is_finished) if is_first() else ({}, False))


def _pinned_for_one(pinned: Mapping[str, Any], update: int, share: int) -> dict[str, Any]:
    """Return pinned lines as they hold for one of several processes, which takes a share of an update's frames."""
    one, (frames_at_once, times, _) = dict(pinned), AT_ONCE
    given = one.get(frames_at_once, update // one[times] if times in one else None)
    one.pop(times, None)
    return one if given is None else {**one, frames_at_once: at_once_of(share, max(1, given))[0]}


def _for_all(lines: Mapping[str, Any]) -> dict[str, Any]:
    """Return one process's lines as those of a run, whose product counts the frames of all processes."""
    return {**lines, AT_ONCE[1]: lines[AT_ONCE[1]] * here().ranks}


def _least_machine(device: "torch.device", settings: Settings, base: BaseModel, *, kept: int) -> Machine:
    """Return what this machine has for a run, its GPU measured, or the least that any of several processes has."""
    from recipes.machine.this_machine import this_machine

    features = from_root(settings.values["vision_cache"])
    if is_alone():
        return replace(this_machine(device, features), kept=kept)
    from recipes.ranks.group import gathered, meet_cards

    meet_cards(device)  # what that takes of them is gone when they are measured
    machine = this_machine(device, features)
    summed = FP32_BYTES * adapter_weights(settings.values, base.read_config())  # gradients as one vector beside them
    return least_of(gathered(replace(machine, card_bytes=machine.card_bytes - summed, kept=kept)))


def _kept_features(settings: Settings, base: BaseModel, source: FramesSource) -> int:
    """Return how many frames' vision features are kept from before, of whatever data."""
    import torch

    from recipes.batches.vision_cache import VisionCache

    values = settings.values
    return VisionCache(
        from_root(values["vision_cache"]),
        base,
        max_pixels=values["max_pixels"],
        max_side=source.max_side,
        dtype=getattr(torch, values["dtype"]),
    ).count()


def _checked(settings: Settings) -> Settings:
    check_placement(settings.values)
    return settings
