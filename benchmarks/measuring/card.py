"""The card that an arm has to itself: what it holds at its peak, how much of it may be used, how fast it computes."""

import gc
import time
from statistics import median

import torch

from data_prep.disk.byte_counts import GIB


def peaks() -> dict[str, float]:
    """Return the most memory that was allocated and reserved since the process began, or since a reset, in GiB."""
    return {
        "peak_allocated_gib": torch.cuda.max_memory_allocated() / GIB,
        "peak_reserved_gib": torch.cuda.max_memory_reserved() / GIB,
    }


def allow_no_more_than(cap_gib: float) -> None:
    """Let this process allocate so much of the card; more fails as on a card of that size."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(cap_gib * GIB / total)


def free_what_was_left() -> None:
    """Let go of a finished run's memory and forget its peak."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def matmul_rate(size: int = 8192) -> float:
    """Return the FLOP/s of a large bf16 matrix product on random data, the median of ten."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(13):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(5):
            a @ b
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - begin) / 5)
    return 2 * size**3 / median(seconds[3:])
