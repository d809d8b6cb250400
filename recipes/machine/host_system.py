"""What lies beneath the libraries: the operating system, WSL's limits, NVIDIA's driver, memory that can be locked."""

import platform
import subprocess

import psutil

from data_prep.errors import InputError
from recipes.machine.memory import GIB

LOCKED_AT_ONCE = 2**26  # bytes

# Memory, from Microsoft's page on .wslconfig; page-locking, from NVIDIA's CUDA on WSL User Guide.
MORE_MEMORY_IN_WSL = "WSL has half of Windows' memory unless memory= in .wslconfig says more (then wsl --shutdown)"

# How nvidia-smi says that the devices which a container was started with were taken from it:
# https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
LOST = "Failed to initialize NVML: Unknown Error"
OTHER_DRIVER = "Driver/library version mismatch"


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
        "can be page-locked, which what stays on the host beside a card must be"
    )


def ask_nvidia_smi(*arguments: str) -> tuple[bool, str]:
    """Return whether nvidia-smi succeeded, and what it said; nothing where it doesn't run."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False, ""
    return done.returncode == 0, done.stdout + done.stderr


def driver_in_words() -> str:
    """Return the NVIDIA driver's version as nvidia-smi tells it."""
    works, said = ask_nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    return f"driver {said.splitlines()[0].strip()}" if works else "driver unknown, because nvidia-smi doesn't run"


def why_no_gpu(built_for: str) -> str:
    """Say what to do where a torch that is `built_for` a version of CUDA sees no GPU."""
    _, said = ask_nvidia_smi()
    if LOST in said:
        return (
            f"the container lost the GPU (nvidia-smi: {LOST}), as it does after systemctl daemon-reload on the host; "
            "recreate it there: docker compose up -d --force-recreate"
        )
    if OTHER_DRIVER in said:
        return f"the driver was updated while it was loaded (nvidia-smi: {OTHER_DRIVER}); restart the machine"
    return (
        f"torch sees none (it is built for CUDA {built_for}); see that nvidia-smi shows the card, that the driver is "
        "580 or newer outside the container (525 inside it), and that the container was started with the GPU"
    )


def check_page_locking(size: float) -> None:
    """Raise InputError unless so many bytes of host memory can be page-locked for the GPU, which they are meanwhile."""
    import torch

    held: list[torch.Tensor] = []
    try:
        while (locked := LOCKED_AT_ONCE * len(held)) < size:
            held.append(torch.empty(LOCKED_AT_ONCE, dtype=torch.uint8, pin_memory=True))
    except RuntimeError as error:
        hint = MORE_MEMORY_IN_WSL if in_wsl() else "end what else holds locked memory"
        raise InputError(
            f"{locked / GIB:.1f} of {size / GIB:.1f} GiB of host memory can be page-locked for the card "
            f"({str(error).splitlines()[0]}); {hint}, or keep less there (the settings *_on_host)"
        ) from None
