"""What this machine has for a run, its card's rates measured: a laptop's are what its power limit leaves of them."""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from data_prep.disk.byte_counts import GIB
from data_prep.disk.places import standing
from data_prep.errors import InputError
from recipes.layers.kernels_here import triton_compiles_on
from recipes.machine.cards import Card
from recipes.machine.plan import Machine, least_of
from recipes.model.device import free_room

SIDE = 4096  # of the matrices of a product: 0.14 TFLOP, 0.1 GiB
COPIED_BYTES = 2**27
ROUNDS = 7
SPARE_DISK_BYTES = GIB


def this_machine(device: torch.device, features: Path, processes: int | None = None) -> Machine:
    """Return what this machine has free, and what its GPU `device` does; kept features go to the folder `features`.

    Of the host's memory that is a share where so many `processes` train on it, by default those of this job. Raises
    InputError where the card's memory is too full to measure it.
    """
    room = free_room(device, processes)
    disk = shutil.disk_usage(standing(features)).free - SPARE_DISK_BYTES
    try:
        card = measured_card(device)
    except torch.OutOfMemoryError:
        free = f"{room['card_bytes'] / GIB:.1f} GiB"
        raise InputError(f"the card has {free} free, too little for a plan; end what else uses it") from None
    compiles = triton_compiles_on(device)
    return Machine(card, room["card_bytes"], room["host_bytes"], max(0.0, float(disk)), compiles)


def smallest_of_cards(cards: int, features: Path) -> Machine:
    """Return what each process has at least where one trains on each of this machine's `cards`; see this_machine."""
    return least_of([this_machine(torch.device("cuda", number), features, cards) for number in range(cards)])


def measured_card(device: torch.device) -> Card:
    """Return a GPU's memory, and its rates as they are measured, in less than a second: 0.4 GiB of it, for a moment."""
    card = Card(
        gib=torch.cuda.get_device_properties(device).total_memory / GIB,
        flops=_product_rate(device),
        **_copy_rates(device),
    )
    torch.cuda.empty_cache()
    return card


def _product_rate(device: torch.device) -> float:
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * SIDE**3 / _seconds(lambda: a @ b)


def _copy_rates(device: torch.device) -> dict[str, float]:
    """Return the bytes a second through the card's memory, read and written, and over the bus from the host."""
    source, target = (torch.empty(COPIED_BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    host = torch.empty(COPIED_BYTES, dtype=torch.uint8)
    with contextlib.suppress(RuntimeError):  # where page-locking is refused, a run's own copies are as slow
        host = host.pin_memory()
    return {
        "memory": 2 * COPIED_BYTES / _seconds(lambda: target.copy_(source)),
        "bus": COPIED_BYTES / _seconds(lambda: target.copy_(host, non_blocking=True)),
    }


def _seconds(work: Callable[[], object]) -> float:
    """Return the median time of a piece of work on the GPU; the first rounds let its clock rise."""
    seconds = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return median(seconds[2:])
