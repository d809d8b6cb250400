"""Host memory that a card copies from, page-locked where the system allows it."""

import sys
from collections.abc import Sequence
from functools import cache

import torch

BLOCK_BYTES = 2**26  # torch page-locks memory in powers of two, so it is taken in blocks of one
ALIGNED_BYTES = 256


def page_locked(size: int) -> torch.Tensor:
    """Return so many bytes of new host memory, page-locked where there is a GPU.

    Where the system refuses that, the memory is ordinary, which is said once: copies from it are slower, and the card
    is waited for meanwhile.
    """
    if torch.cuda.is_available():
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            _say_refused(str(error).splitlines()[0])
    return torch.empty(size, dtype=torch.uint8)


@cache
def _say_refused(reason: str) -> None:
    print(f"host memory can't be page-locked ({reason}): going on without, which is slower", file=sys.stderr)


def lock(tensor: torch.Tensor) -> torch.Tensor:
    """Return a host tensor in page-locked memory, itself where it lies there already; see page_locked."""
    if tensor.is_pinned() or not torch.cuda.is_available():
        return tensor
    locked = page_locked(tensor.nbytes).view(tensor.dtype).view(tensor.shape)
    return locked.copy_(tensor)


class HostMemory:
    """Page-locked memory that fills up with tensors, each in one part or, at a block's end, in several."""

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)

    def store(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return a copy of a tensor's bytes, in order, as parts that `send` takes. The tensor may lie on the card."""
        parts, content = [], tensor.detach().contiguous().view(-1).view(torch.uint8)
        while len(content):
            if not len(self._block):
                self._block = page_locked(BLOCK_BYTES)
            size = min(len(content), len(self._block))
            parts.append(self._block[:size].copy_(content[:size]))
            self._block, content = self._block[-(-size // ALIGNED_BYTES) * ALIGNED_BYTES :], content[size:]
        return parts


def send(parts: Sequence[torch.Tensor], slot: torch.Tensor) -> None:
    """Copy parts one after another into a slot on the card, in the current stream; the host goes on meanwhile."""
    begin = 0
    for part in parts:
        slot[begin : begin + len(part)].copy_(part, non_blocking=True)
        begin += len(part)
