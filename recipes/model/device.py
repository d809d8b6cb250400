"""The device that a model runs on: which, and what memory it has free or lacks."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from joblib import cpu_count

from data_prep.errors import InputError
from recipes.layers.sizes import base_weights
from recipes.model.base import BaseModel
from recipes.ranks.place import here

MERGING_ROOM = 1.4  # times what the weights take in 16 bits; measured for the 7B: 1.25


def choose_device() -> torch.device:
    """Return the first CUDA device, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def use_all_cores() -> None:
    """Let PyTorch compute with every core that this process has; `accelerate launch` leaves it one thread.

    Several processes of a job on one machine have a share each.
    """
    torch.set_num_threads(max(1, cpu_count() // here().local_ranks))


def free_memory(device: torch.device) -> float:
    """Return the bytes that this process may still take of a GPU's memory, by its own cap too where one is set."""
    free, total = torch.cuda.mem_get_info(device)
    return min(float(free), total * torch.cuda.get_per_process_memory_fraction(device))


def free_room(device: torch.device, processes: int | None = None) -> dict[str, float]:
    """Return the bytes that a GPU and the host have free, under the names that `shortages` takes them by.

    Of the host's memory that is a share where so many processes train on it, by default those of this job.
    """
    host = psutil.virtual_memory().available / (processes or here().local_ranks)
    return {"card_bytes": free_memory(device), "host_bytes": host}


def room_beside_others(cards: int) -> dict[str, float]:
    """Return what free_room does for each process at least where one trains on each of this machine's `cards`."""
    rooms = [free_room(torch.device("cuda", number), cards) for number in range(cards)]
    return {name: min(room[name] for room in rooms) for name in rooms[0]}


class CardFullError(InputError):
    """The card ran out of memory."""


@contextmanager
def memory_told(frames: int) -> Iterator[None]:
    """Raise CardFullError where the card runs out of memory inside, with so many frames at once."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CardFullError(
            f"the card has no memory left for {frames} frames at once: close other programs that use it, have"
            " fewer at once, or leave more of the base in host memory (--layers-on-host all)"
        ) from error


def has_room_to_merge(base: BaseModel, device: torch.device) -> bool:
    """Say whether a GPU has memory to spare for all of a base in 16 bits, its 4-bit weights beside it at first."""
    if device.type == "cpu":
        return False
    return free_memory(device) > MERGING_ROOM * 2 * base_weights(base.read_config())
