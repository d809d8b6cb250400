"""The operating system beneath the libraries: which it is, WSL's limits, how much memory can be page-locked."""

import platform

import psutil

from data_prep.disk.byte_counts import GIB

# Memory, from Microsoft's page on .wslconfig; page-locking, from NVIDIA's CUDA on WSL User Guide.
MORE_MEMORY_IN_WSL = "WSL has half of Windows' memory unless memory= in .wslconfig says more (then wsl --shutdown)"


def in_wsl() -> bool:
    """Say whether Linux runs in Windows: in WSL, or in a container of a Docker Desktop that stands on it."""
    return "microsoft" in platform.release().lower()


def system_in_words() -> str:
    """Name the system, and what is known of it that a run had better know."""
    if platform.system() != "Linux":
        return f"{platform.system()}, where nothing but the demo could run, and that was never tried; use Linux"
    if not in_wsl():
        return f"Linux {platform.release()}"
    total = psutil.virtual_memory().total / GIB
    return (
        f"Linux in Windows, never tried here, with {total:.1f} GiB of memory: {MORE_MEMORY_IN_WSL}; a part of it alone "
        "can be page-locked, and what stays on the host beside a card goes slower without"
    )


def check_page_locking(size: float) -> str | None:
    """Say how much of so many bytes of host memory can be page-locked for the GPU; None where all can.

    They are page-locked meanwhile.
    """
    import torch

    from recipes.layers.host_memory import BLOCK_BYTES

    held: list[torch.Tensor] = []
    try:
        while (locked := BLOCK_BYTES * len(held)) < size:
            held.append(torch.empty(BLOCK_BYTES, dtype=torch.uint8, pin_memory=True))
    except RuntimeError as error:
        hint = MORE_MEMORY_IN_WSL if in_wsl() else "end what else holds locked memory"
        return (
            f"{locked / GIB:.1f} of {size / GIB:.1f} GiB of host memory can be page-locked for the card "
            f"({str(error).splitlines()[0]}), and the rest goes slower; {hint}, or keep less there (the settings "
            "*_on_host)"
        )
    return None
