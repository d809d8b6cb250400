"""Where the processes of a job meet: in the launcher's store, with what a job that was started before left there."""

import json
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from data_prep.errors import InputError
from recipes.ranks.place import Place

JOINING_SECONDS = 120  # that processes wait for each other once all were started
_ASK_SECONDS = 0.02
_REASON_CHARACTERS = 200


def meet(place: Place) -> dist.Store:
    """Return a part of the launcher's store that the processes which were started together have to themselves.

    torchrun keeps one store for all its restarts, in which a process would find the addresses of ones that are gone.
    So each calls, by a name that is new, and the first one answers with a new name for them all, until each has found
    itself called. Raises InputError where they don't meet within JOINING_SECONDS.
    """
    wait = timedelta(seconds=JOINING_SECONDS)
    try:
        store, _, _ = next(dist.rendezvous("env://", rank=place.rank, world_size=place.ranks, timeout=wait))
        job = _answer(store, place.ranks) if place.rank == 0 else _call(store, place.rank)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{_missed(place)} ({shortened(error)})") from None
    if job is None:
        raise InputError(_missed(place))
    return dist.PrefixStore(job, store)


def shortened(error: Exception) -> str:
    """Return what a library says, which may be pages, as the beginning of a line."""
    return " ".join(str(error).split())[:_REASON_CHARACTERS]


def _missed(place: Place) -> str:
    return (
        f"process {place.rank} of {place.ranks} didn't meet all others within {JOINING_SECONDS} s of its start; see "
        "that each machine runs its line of docs/machines.md, and reaches the first one"
    )


def _answer(store: dist.Store, ranks: int) -> str | None:
    job, end = uuid.uuid4().hex, time.monotonic() + JOINING_SECONDS
    others = range(1, ranks)
    while time.monotonic() < end:
        called = {rank: store.get(_call_of(rank)).decode() for rank in others if store.check([_call_of(rank)])}
        store.set("answer", json.dumps([job, list(called.values())]))
        if all(store.check([f"{job}/{rank}"]) for rank in others):
            return job
        time.sleep(_ASK_SECONDS)
    return None


def _call(store: dist.Store, rank: int) -> str | None:
    own, end = uuid.uuid4().hex, time.monotonic() + JOINING_SECONDS
    store.set(_call_of(rank), own)
    while time.monotonic() < end:
        job, called = json.loads(store.get("answer")) if store.check(["answer"]) else (None, [])
        if own in called:
            store.set(f"{job}/{rank}", "here")
            return str(job)
        time.sleep(_ASK_SECONDS)
    return None


def _call_of(rank: int) -> str:
    return f"call/{rank}"
