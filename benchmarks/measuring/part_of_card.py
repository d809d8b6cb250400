"""A part of a large card that is about as fast as a small one: few multiprocessors, half of the bus."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from benchmarks.measuring.projection import PART_MULTIPROCESSORS
from recipes.layers import host_memory


def use_part_of_card(multiprocessors: int = PART_MULTIPROCESSORS, *, halved_bus: bool = True) -> None:
    """Have this process compute on so many of the card's multiprocessors from here on, and end by os._exit.

    Models are loaded before: libraries that choose the card would leave the part. It is gone before tensors are when
    Python ends in the ordinary way, which crashes.
    """
    part_of_card(multiprocessors).set_context()
    torch.autograd.set_multithreading_enabled(False)  # a thread of its own would go backward on the whole card
    torch.cuda.set_device = _stay  # compiled code chooses its card at each call, and would leave the part
    if halved_bus:
        halve_bus()


@cache
def part_of_card(multiprocessors: int) -> Any:
    """Return the part's context, which is held as long as the process lives."""
    from torch.cuda.green_contexts import GreenContext

    torch.cuda.init()
    return GreenContext.create(num_sms=multiprocessors, device_id=0)


def halve_bus() -> None:
    """Have everything that streams to the card pass over the bus twice."""
    send = host_memory.send

    def send_twice(parts: Sequence[torch.Tensor], slot: torch.Tensor) -> None:
        send(parts, slot)
        send(parts, slot)

    host_memory.send = send_twice


def _stay(device: Any) -> None:
    """Choose no card: the part of one is chosen."""
