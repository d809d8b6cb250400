"""What cards do at most, and the part of an H100 that stands for a small one."""

from dataclasses import dataclass

PART_MULTIPROCESSORS = 8
PART_FLOPS = 55e12  # of a bf16 matrix product on so many of an H100's 132


@dataclass(frozen=True)
class Card:
    """What a card does at most: operations, and bytes through its memory and from the host to it, each a second."""

    flops: float
    memory: float
    bus: float


# bf16, dense: half of what NVIDIA's data sheets say of tensor cores, where every other weight is a zero.
CARDS = {
    "a1000": Card(flops=26.9e12, memory=192e9, bus=12e9),  # RTX A1000, the desktop's, 8 GB
    "a1000-laptop-4gb": Card(flops=18.7e12, memory=176e9, bus=12e9),  # RTX A1000 Laptop GPU, 4 GB
}


def projected(part_seconds: float) -> float:
    """Return how long a desktop's RTX A1000 should take for what the part of an H100 took; nothing is measured.

    It goes by arithmetic alone, so it is too low where memory bounds.
    """
    return part_seconds * PART_FLOPS / CARDS["a1000"].flops
