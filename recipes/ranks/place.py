"""A process's place among those that a launcher started for one job. Imports no torch."""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

from data_prep.errors import InputError

# What accelerate and torchrun say to each process that they start.
_SAID = {"RANK": "rank", "WORLD_SIZE": "ranks", "LOCAL_RANK": "local_rank", "LOCAL_WORLD_SIZE": "local_ranks"}
# How other launchers count the processes that they started for one command.
_OTHER_COUNTS = {"SLURM_STEP_NUM_TASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpirun"}


@dataclass(frozen=True)
class Place:
    """Process `rank` of `ranks`, counted from 0; on its own machine it is `local_rank` of `local_ranks`."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1


_here = Place()


def here() -> Place:
    """Return this process's place among those that have joined, alone where none have."""
    return _here


def stand(place: Place) -> None:
    """Have `here` say that this process has joined others at that place."""
    global _here
    _here = place


@contextmanager
def by_itself() -> Iterator[None]:
    """Have this process work as one that is alone; the others wait for it where all meet next."""
    before = here()
    stand(Place())
    try:
        yield
    finally:
        stand(before)


def is_first() -> bool:
    """Say whether this process is the one that writes and talks."""
    return _here.rank == 0


def is_alone() -> bool:
    """Say whether there are no others."""
    return _here.ranks == 1


def take_place(environment: MutableMapping[str, str] | None = None) -> Place:
    """Return this process's place, and take what the launcher said of it out of the environment.

    transformers and accelerate, which would find it there, take themselves to be alone then: they would wrap the model,
    whose forward pass is never called here, repeat rows to even batches out, and scale losses by the processes. Where
    each process may have a card of its own, the others' are hidden from it. Raises InputError where a launcher was
    asked for several processes, and started ones that don't know of each other.
    """
    environment = os.environ if environment is None else environment
    said = {field: environment.pop(name, None) for name, field in _SAID.items()}
    if said["rank"] is None:
        _check_alone(environment)
        return Place()
    place = Place(**{field: int(number) for field, number in said.items() if number is not None})
    if place.ranks > 1:
        environment["CUDA_VISIBLE_DEVICES"] = card_of(place, environment.get("CUDA_VISIBLE_DEVICES"))
    return place


def card_of(place: Place, visible: str | None) -> str:
    """Return the card, of those that a machine's processes may see, that is this process's own.

    `visible` is a list as in CUDA_VISIBLE_DEVICES, None for all. Raises InputError where it has fewer than processes.
    """
    if visible is None:
        return str(place.local_rank)
    cards = [card.strip() for card in visible.split(",") if card.strip()]
    if not cards:
        return ""
    if len(cards) < place.local_ranks:
        raise InputError(
            f"{place.local_ranks} processes were started on this machine, and CUDA_VISIBLE_DEVICES shows {len(cards)} "
            f"card{'s' * (len(cards) > 1)}; start one for each card"
        )
    return cards[place.local_rank]


def _check_alone(environment: MutableMapping[str, str]) -> None:
    # accelerate names a place to meet at where it was asked for several processes, and starts one process nevertheless
    # unless --multi_gpu or its configuration says so, or it sees several cards itself.
    if {"ACCELERATE_DYNAMO_BACKEND", "MASTER_ADDR"} <= set(environment):
        raise InputError(
            "accelerate launch was asked for several processes and started one that is alone, which would train an "
            "adapter of its own; add --multi_gpu, or --config_file accelerate_config_multi.yaml; or unset MASTER_ADDR, "
            "where that is left from elsewhere"
        )
    for name, launcher in _OTHER_COUNTS.items():
        if int(environment.get(name) or 1) > 1:
            raise InputError(
                f"{launcher} started {environment[name]} processes that don't know of each other; have it start one on "
                "each machine, of accelerate launch or torchrun"
            )


def check_one_process(script: str) -> None:
    """Raise InputError where a script that runs in one process was launched as several; all but the first are silent.

    Leaves the environment as it is.
    """
    place = take_place(dict(os.environ))
    if place.ranks == 1:
        return
    if place.rank:
        raise SystemExit(2)
    raise InputError(f"{script} runs in one process, and {place.ranks} were started; run python recipes/{script}")
