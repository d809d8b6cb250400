"""What doctor.py says of systems that this machine hasn't: each told by what it would show."""

import platform
from types import SimpleNamespace

import psutil
import pytest
import torch

from recipes.machine import host_system

IN_WSL = "5.15.167.4-microsoft-standard-WSL2"


@pytest.fixture
def wsl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: IN_WSL)
    memory = SimpleNamespace(total=7.5 * 2**30, available=6 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


@pytest.mark.parametrize("release", ["6.1.0-18-amd64", "6.8.0-51-generic", "6.8.0-1018-azure"])
def test_linux_is_named_and_no_more(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: release)
    assert host_system.system_in_words() == f"Linux {release}"


def test_wsl_is_known_with_its_limits(wsl: None) -> None:
    said = host_system.system_in_words()
    for words in ("never tried", "7.5 GiB", "half of Windows' memory", "memory= in .wslconfig", "page-locked"):
        assert words in said


def test_macos_is_not_said_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "never tried" in host_system.system_in_words()


def test_memory_that_cannot_be_page_locked_is_told(monkeypatch: pytest.MonkeyPatch, wsl: None) -> None:
    left = [3]

    def lock(size: int, *, dtype: torch.dtype, pin_memory: bool) -> object:
        assert (size * dtype.itemsize, pin_memory) == (2**26, True)
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")
        return object()

    monkeypatch.setattr(torch, "empty", lock)
    assert host_system.check_page_locking(0.0) is None
    assert host_system.check_page_locking(3 * 2**26) is None
    left[0] = 8
    said = host_system.check_page_locking(2.6 * 2**30)
    assert said is not None
    assert said.startswith(
        "0.5 of 2.6 GiB of host memory can be page-locked for the card (CUDA error: out of memory), "
    )
    assert "and the rest goes slower; WSL has half of Windows' memory" in said
