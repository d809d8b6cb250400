"""The part of an H100 that stands for a small card, and what its seconds mean for one."""

from recipes.machine.cards import ASSUMED, CARDS

PART_MULTIPROCESSORS = 8
PART_FLOPS = 55e12  # of a bf16 matrix product on so many of an H100's 132


def projected(part_seconds: float) -> float:
    """Return how long a desktop's RTX A1000 should take for what the part of an H100 took; nothing is measured.

    It goes by arithmetic alone, so it is too low where memory bounds.
    """
    return part_seconds * PART_FLOPS / CARDS[ASSUMED].flops
