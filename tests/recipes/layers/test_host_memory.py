"""Host memory keeps bytes as they are, in parts, and does without page-locking where that is refused."""

from typing import Any

import pytest
import torch

from recipes.layers import host_memory
from recipes.layers.host_memory import HostMemory, lock, page_locked, send


@pytest.mark.parametrize("block", [2**10, 2**26])
def test_tensors_come_back_whole_wherever_a_block_ends(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(host_memory, "BLOCK_BYTES", block)
    memory = HostMemory()
    tensors = [torch.randn(300), torch.randint(256, (5, 77), dtype=torch.uint8), torch.randn(2, 700).bfloat16()]
    stored = [memory.store(tensor) for tensor in tensors]
    for tensor, parts in zip(tensors, stored, strict=True):
        slot = torch.empty_like(tensor)
        send(parts, slot.view(-1).view(torch.uint8))
        assert torch.equal(slot, tensor)
        starts = [part.data_ptr() - part.untyped_storage().data_ptr() for part in parts]
        assert starts[0] % host_memory.ALIGNED_BYTES == 0 and not any(starts[1:])
    assert (max(map(len, stored)) > 1) == (block == 2**10)


def test_refused_page_locking_is_said_once_and_done_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = torch.empty

    def refusing(*size: Any, pin_memory: bool = False, **how: Any) -> torch.Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory\nmore of it")
        return empty(*size, **how)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", refusing)
    host_memory._say_refused.cache_clear()
    tensor = torch.arange(6.0).view(2, 3)
    assert torch.equal(lock(tensor), tensor)
    assert page_locked(10).nbytes == 10
    said = capsys.readouterr().err
    assert said == ("host memory can't be page-locked (CUDA error: out of memory): going on without, which is slower\n")
