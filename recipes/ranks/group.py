"""What the processes of a launched job tell each other. One process alone is a group of one.

Over torch.distributed: gloo for what lies in host memory, NCCL for what lies on cards.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from data_prep.errors import InputError, one_line
from recipes.ranks.earlier import keep_words_in
from recipes.ranks.meeting import meet, shortened
from recipes.ranks.place import Place, here, is_alone, is_first, stand

Told = TypeVar("Told")

# One may compute kept features, or load a base, while others have that already.
WAITING = timedelta(hours=3)
ECHO_SECONDS = 3.0  # that one which meets a mistake waits for another to tell of it
_STOP = "stop"


class RankLostError(InputError):
    """Another process of the job has ended, or can't be reached."""


class _Board:
    """Notes that any process may leave and read at any time, in the store that the launcher keeps."""

    def __init__(self, store: dist.Store) -> None:
        self._store = store

    def leave(self, name: str, text: str) -> None:
        self._store.set(f"note/{name}", text)

    def read(self, name: str) -> str | None:
        key = f"note/{name}"
        return self._store.get(key).decode() if self._store.check([key]) else None


_board: _Board | None = None


@contextmanager
def joined(place: Place) -> Iterator[None]:
    """Join the other processes of a job; inside, the first one alone talks, and a mistake of several is told once.

    The launcher's variables say where they meet. Raises InputError where they don't, and for whatever is wrong with any
    of them.
    """
    _join(place)
    with _told_once():
        if is_first():
            yield
        else:
            _silence_libraries()
            with Path(os.devnull).open("w") as nothing, redirect_stderr(nothing), redirect_stdout(nothing):
                yield
        gathered(None)  # none leaves before all are done
    _leave()  # not after a mistake: cards may wait for others' numbers then, and the process ends


def _join(place: Place) -> None:
    global _board
    store = meet(place)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _reached():
        store.set_timeout(WAITING)
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.ranks, timeout=WAITING)
    stand(place)
    _board = _Board(store)
    keep_words_in(store)


def _leave() -> None:
    global _board
    stand(Place())
    _board = None
    keep_words_in(None)
    dist.destroy_process_group()


def _silence_libraries() -> None:
    from datasets import disable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    disable_progress_bars()


@contextmanager
def _reached() -> Iterator[None]:
    """Tell of a process that can't be reached any more."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RankLostError(
            f"another process of this job has ended, or can't be reached ({shortened(error)}); go on with --resume"
        ) from error


def gathered(value: Told) -> list[Told]:
    """Return every process's value, in their order. Raises RankLostError where one has ended, as all here do."""
    if is_alone():
        return [value]
    found: list[Any] = [None] * here().ranks
    with _reached():
        dist.all_gather_object(found, value)
    return found


def from_first(value: Told) -> Told:
    """Return the first process's value; of the others' nothing is looked at."""
    if is_alone():
        return value
    found: list[Any] = [value]
    with _reached():
        dist.broadcast_object_list(found, src=0)
    return found[0]


def add_up(values: torch.Tensor) -> None:
    """Put the sum over all processes in a tensor's place, on host or card; all get the very same."""
    if not is_alone():
        with _reached():
            dist.all_reduce(values)


def meet_cards(device: torch.device) -> None:
    """Have the processes' cards find each other, for which NCCL takes some of their memory."""
    add_up(torch.zeros(1, device=device))


def take_first(values: torch.Tensor) -> None:
    """Put the first process's values in a tensor's place, on host or card."""
    if not is_alone():
        with _reached():
            dist.broadcast(values, src=0)


def send_to_first(values: torch.Tensor, rank: int) -> None:
    """Put one process's values in the first one's tensor, in host memory; all others pass by."""
    if rank and here().rank in (0, rank):
        with _reached():
            dist.send(values, 0) if rank == here().rank else dist.recv(values, rank)


def file_from_first(content: bytes) -> bytes:
    """Return the first process's bytes, which may be many; of the others' nothing is looked at."""
    size = torch.tensor([len(content)])
    take_first(size)
    part = torch.zeros(int(size), dtype=torch.uint8)
    if is_first() and content:
        part = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    take_first(part)
    return part.numpy().tobytes()


def ask_to_stop() -> None:
    """Have every process of the job find that it is to stop, when it next asks."""
    if _board is not None:
        with _reached():
            _board.leave(_STOP, str(here().rank))


def asked_to_stop() -> bool:
    """Say whether any process asked all to stop; asks the launcher, which takes a tenth of a millisecond."""
    if _board is None:
        return False
    with _reached():
        return _board.read(_STOP) is not None


def compare(what: dict[str, Any]) -> None:
    """Raise InputError where a process has another value than the first one, with its name and both values."""
    first = from_first(what)
    differs = [name for name in sorted({*first, *what}) if first.get(name) != what.get(name)]
    refuse_any(
        f"{differs[0]} is {what.get(differs[0])!r} for {_name()}, and {first.get(differs[0])!r} for process 0; "
        "give every process the same"
        if differs
        else None
    )


def refuse_any(refusal: str | None) -> None:
    """Raise InputError in all processes where any has something against going on: with the first such refusal."""
    for found in gathered(refusal):
        if found is not None:
            raise InputError(found)


def _name() -> str:
    return f"process {here().rank} on {socket.gethostname()}"


@contextmanager
def _told_once() -> Iterator[None]:
    """Have one process tell of a mistake that several meet, by its name where it isn't the first."""
    try:
        yield
    except InputError as error:
        if _is_told(one_line(error), lost=isinstance(error, RankLostError)):
            raise SystemExit(2) from None
        raise error if is_first() else InputError(f"{_name()}: {error}") from None


def _is_told(text: str, *, lost: bool) -> bool:
    """Say whether another process tells of this mistake, or of what others were lost by; leave it for them to find."""
    assert _board is not None
    others = [rank for rank in range(here().ranks) if rank != here().rank]
    try:
        if not lost:
            _board.leave(f"error/{here().rank}", text)
            if is_first():
                return False
            others = [0]
        end = time.monotonic() + ECHO_SECONDS
        while time.monotonic() < end:
            found = {told for rank in others if (told := _board.read(f"error/{rank}")) is not None}
            if text in found or (lost and found):
                return True
            time.sleep(0.05)
        _board.leave(f"error/{here().rank}", text)
    except RuntimeError:  # the store went with the launcher
        pass
    return False
