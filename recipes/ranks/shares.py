"""Which rows are whose where several processes share them: each row once, in order, without padding. No torch."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from data_prep.errors import InputError


class Sampler(Protocol):
    """What gives an epoch's row numbers in their order."""

    def __iter__(self) -> Iterator[int]: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's order comes next."""


@dataclass(frozen=True)
class UpdateShares:
    """An epoch of so many `rows` in updates of `update` rows each, the last one short, shared by `ranks` processes.

    A process has rows of an update that follow each other, those of process 0 first. Only of a short update some have
    one more than others, or none.
    """

    rows: int
    update: int
    ranks: int

    @property
    def updates(self) -> int:
        """How many updates an epoch has."""
        return math.ceil(self.rows / self.update)

    def rows_of(self, number: int) -> int:
        """Return how many rows all processes have together in an update of any epoch, counted from 0."""
        return min(self.update, self.rows - self.update * (number % self.updates))

    def part_of(self, rank: int, rows: int) -> slice:
        """Return which of an update's so many rows are those of a process."""
        most = math.ceil(rows / self.ranks)
        return slice(min(most * rank, rows), min(most * (rank + 1), rows))

    @property
    def most_rows(self) -> int:
        """How many rows a process has in an epoch at most: what process 0 has."""
        full, rest = divmod(self.rows, self.update)
        return full * (self.update // self.ranks) + math.ceil(rest / self.ranks)


class SharedSampler:
    """One process's rows out of the order that a `sampler` gives, which has to give all processes the same one.

    It is as long as the longest of all, so that every process counts an epoch's batches alike.
    """

    def __init__(self, sampler: Sampler, shares: UpdateShares, rank: int) -> None:
        self.sampler, self.shares, self.rank = sampler, shares, rank

    def __iter__(self) -> Iterator[int]:
        rows = iter(self.sampler)
        while update := list(islice(rows, self.shares.update)):
            yield from update[self.shares.part_of(self.rank, len(update))]

    def __len__(self) -> int:
        return self.shares.most_rows

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's order comes next."""
        self.sampler.set_epoch(epoch)


def frames_of(values: Mapping[str, Any]) -> int:
    """Return how many frames an update takes by a run's settings, in all processes together."""
    return int(values["per_device_train_batch_size"] * values["gradient_accumulation_steps"])


def loaders_of(wanted: int, cores: int, processes: int) -> int:
    """Return how many loaders each of so many processes on a machine has where as many are wanted, one at the least."""
    return wanted if processes == 1 else min(wanted, max(1, cores // processes))


def frames_a_process(frames: int, ranks: int) -> int:
    """Return how many of an update's frames each process takes.

    Raises InputError where so many processes can't take alike many, with the numbers that can.
    """
    if frames % ranks:
        could = ", ".join(str(count) for count in range(1, frames + 1) if frames % count == 0)
        raise InputError(
            f"{ranks} processes can't share an update of {frames} frames alike; start one of {could}, or set "
            f"--frames_times_processes for {frames} frames each"
        )
    return frames // ranks


def at_once_of(share: int, most: int) -> tuple[int, int]:
    """Return how many of a process's frames of an update are at once, at most so many, and how often that is."""
    frames = max(count for count in range(1, share + 1) if share % count == 0 and count <= most)
    return frames, share // frames


def whole_batches(rows: int, batch: int, rank: int, ranks: int) -> range:
    """Return which rows are a process's to score: batches of `batch` rows as one process would make them, in order."""
    batches = math.ceil(rows / batch)
    begin, end = (batch * (batches * each // ranks) for each in (rank, rank + 1))
    return range(begin, min(end, rows))


def every(positions: Iterable[int], rank: int, ranks: int) -> list[int]:
    """Return a process's part of work that has no order: every so manieth."""
    return list(islice(positions, rank, None, ranks))
