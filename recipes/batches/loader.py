"""Rows as a loader gives them: encoded images in batches, from worker processes."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from joblib import cpu_count
from torch.utils.data import DataLoader, get_worker_info

from recipes.ranks.place import here

Row = Mapping[str, Any]


def batches(rows: Any, collate: Callable[[Any], Any], *, batch_size: int, num_workers: int) -> DataLoader:
    """Return the batches that `collate` makes of rows, in order, prepared in worker processes where there are any.

    Those leave signals to this process.
    """
    return DataLoader(
        rows,
        batch_size=batch_size,
        collate_fn=collate,
        num_workers=num_workers,
        worker_init_fn=leave_process_group,
        pin_memory=torch.cuda.is_available(),
    )


def threads_to_decode() -> int:
    """Return how many threads may decode here at once: this process's share of the cores, where it is one of several.

    Others are a loader's worker processes, and those of a job on this machine.
    """
    worker = get_worker_info()
    return max(1, cpu_count() // (here().local_ranks * (worker.num_workers if worker else 1)))


def encoded_image(row: Row) -> bytes:
    """Return the encoded bytes of a data set row's frame."""
    return row["image"]["bytes"]


def leave_process_group(_worker_id: int = 0) -> None:
    """Put a DataLoader's worker out of reach of signals to the run's process group; a `worker_init_fn`.

    A terminal's Ctrl-C, `timeout` and most schedulers signal the whole group, and a run whose workers are gone can't
    finish its update and save. Workers end with the main process by themselves. Ignoring SIGTERM instead wouldn't do:
    it is how the main process ends them, and it would wait for them for ever.
    """
    os.setpgrp()


def init_worker(seed_worker: Callable[[int], None], worker_id: int) -> None:
    """Put a worker out of reach of signals, and have `seed_worker` seed it."""
    leave_process_group()
    seed_worker(worker_id)
