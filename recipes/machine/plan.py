"""What of a run lies where, and how many frames are on the card at once: what can be planned, and what a plan holds.

No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from data_prep.errors import InputError
from recipes.machine.cards import Card
from recipes.machine.memory import MemoryNeed
from recipes.machine.training_time import TrainingTime

AT_ONCE = ("per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size")
STREAMED = ("layers_on_host", "vision_blocks_on_host")
RECOMPUTED = ("activation_checkpointing", "recomputed_layers")
TABLES = ("embedding_on_host", "head_on_host", "optimizer_on_host")
HOW = ("unpack_base", "compile_layers", "cuda_graphs")
PLANNED = (*AT_ONCE, *STREAMED, *RECOMPUTED, *TABLES, *HOW, "cache_vision_features")

HOST_OPTIMIZERS = ("adamw_torch_fused", "adamw_torch")  # that optimizer_on_host stands in for
CPU_FRAMES = 8  # at once, where there is no card
ASSUMED_FRAMES = 5000  # of a data set that isn't known: about what the public one gives


# What helps a run that is too large for a machine, and says itself what lies where.
LEAVE_IT_TO_THE_MACHINE = "set frames_an_update, and leave out what says what lies where: that is planned then"


class NoPlanError(InputError):
    """Nothing fits a machine. The message says what it lacks."""


@dataclass(frozen=True)
class Machine:
    """What a machine has for a run: its card's rates; bytes free on the card, the host, and the disk of kept features.

    `compiles` says whether Triton does there, for this project's kernels and for torch.compile, and `kept` how many
    frames' features are kept there already.
    """

    card: Card
    card_bytes: float
    host_bytes: float
    disk_bytes: float
    compiles: bool = True
    kept: int = 0


def least_of(machines: Sequence[Machine]) -> Machine:
    """Return a machine that has of everything the least that any of these has: what one plan for all goes by."""
    rates = {each.name: min(getattr(one.card, each.name) for one in machines) for each in fields(Card)}
    names = [each.name for each in fields(Machine) if each.name != "card"]
    return Machine(Card(**rates), **{name: min(getattr(one, name) for one in machines) for name in names})


class Plan(NamedTuple):
    """The values of PLANNED, with what they are predicted to need and to take."""

    values: dict[str, Any]
    need: MemoryNeed
    time: TrainingTime


def epochs_of(settings: Mapping[str, Any], frames: int) -> float:
    """Return how often a run sees each of so many frames, by its epochs or its updates."""
    if settings["max_steps"] > 0:
        return float(settings["max_steps"] * settings["frames_an_update"] / frames)
    return float(settings["num_train_epochs"])


def frames_on_cpu(update: int, pinned: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lines of PLANNED where there is no card to plan for: frames at once, and what is pinned.

    Raises InputError where these can't make an update of so many frames.
    """
    ways = [
        way for count in range(1, update + 1) if agrees(way := at_once(update, count), pinned) and update % count == 0
    ]
    if not ways:
        raise contradiction(pinned)
    few = [way for way in ways if way["per_device_train_batch_size"] <= CPU_FRAMES]
    return {**(few[-1] if few else ways[0]), **pinned}


def at_once(update: int, count: int) -> dict[str, Any]:
    """Return the lines of an update of so many frames by which `count` of them are on the card at once."""
    return {"per_device_train_batch_size": count, "gradient_accumulation_steps": update // count}


def agrees(way: Mapping[str, Any], pinned: Mapping[str, Any]) -> bool:
    """Say whether lines that may be chosen leave those that are pinned as they are."""
    return all(value == pinned.get(name, value) for name, value in way.items())


def contradiction(pinned: Mapping[str, Any]) -> InputError:
    """Return the error for lines that no choice agrees with."""
    return InputError(f"no plan agrees with what the YAML and the flags say; leave out some of {', '.join(pinned)}")
