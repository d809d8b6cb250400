"""A run's settings with what its YAML leaves to the machine: what lies where, how many frames are on it at once."""

import sys
from collections.abc import Mapping
from typing import Any

from data_prep.files import from_root
from data_prep.hub.source import open_dataset
from data_prep.labels import TEST
from recipes.machine.plan import PLANNED, frames_on_cpu
from recipes.machine.plan_in_words import in_words
from recipes.machine.planner import plan_run
from recipes.training.checks import check_settings
from recipes.training.command_line import Settings
from recipes.training.free_settings import KEPT_BY_A_RUN
from recipes.training.run_folder import RunFolder


def planned(settings: Settings, config: Mapping[str, Any], folder: RunFolder) -> Settings:
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

    pinned = {**settings.pinned, **{name: begun[name] for name in KEPT_BY_A_RUN if name in begun}}
    device = torch.device("cpu") if values["use_cpu"] else choose_device()
    if device.type == "cpu":
        return _checked(settings.with_lines(frames_on_cpu(values["frames_an_update"], pinned)))
    from recipes.machine.this_machine import this_machine

    splits = open_dataset(values["dataset"], revision=values["dataset_revision"]).dataset
    frames = sum(len(rows) for split, rows in splits.items() if split != TEST)
    plan = plan_run(values, pinned, config, this_machine(device, from_root(values["vision_cache"])), frames=frames)
    for line in in_words(plan, frames=frames, epochs=values["num_train_epochs"]):
        print(f"plan: {line}", file=sys.stderr)
    return _checked(settings.with_lines(plan.values))


def _checked(settings: Settings) -> Settings:
    check_settings(settings.values)
    return settings
