"""A run's settings with what its YAML leaves to the machine: what lies where, how many frames are on it at once."""

import sys
from dataclasses import replace

from data_prep.files import from_root
from data_prep.hub.source import FramesSource
from recipes.machine.plan import PLANNED, epochs_of, frames_on_cpu
from recipes.machine.plan_in_words import in_words
from recipes.machine.planner import plan_run
from recipes.model.base import BaseModel
from recipes.training.checks import check_placement
from recipes.training.command_line import Settings
from recipes.training.free_settings import KEPT_BY_A_RUN
from recipes.training.run_folder import RunFolder


def planned(settings: Settings, base: BaseModel, source: FramesSource, folder: RunFolder) -> Settings:
    """Return a run's settings with the lines that its YAML leaves to the machine, which are told in words.

    Where `frames_an_update` isn't set none are. A run that goes on keeps what it can't change, a finished one all.
    Raises InputError where nothing fits, and where lines contradict each other.
    """
    values, begun = settings.values, folder.begun()
    if values["frames_an_update"] is None:
        return settings
    if folder.is_finished:
        return settings.with_lines({name: begun[name] for name in PLANNED if name in begun})
    import torch

    from recipes.model.device import choose_device

    pinned = {**{name: begun[name] for name in KEPT_BY_A_RUN if name in begun}, **settings.pinned}
    device = torch.device("cpu") if values["use_cpu"] else choose_device()
    if device.type == "cpu":
        return _checked(settings.with_lines(frames_on_cpu(values["frames_an_update"], pinned)))
    from recipes.machine.this_machine import this_machine

    frames = source.frames_beside_test
    machine = this_machine(device, from_root(values["vision_cache"]))
    machine = replace(machine, kept=min(frames, _kept_features(settings, base, source)))
    plan = plan_run(values, pinned, base.read_config(), machine, frames=frames)
    for line in in_words(plan, frames=frames, epochs=epochs_of(values, frames), kept=machine.kept):
        print(f"plan: {line}", file=sys.stderr)
    return _checked(settings.with_lines(plan.values))


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
