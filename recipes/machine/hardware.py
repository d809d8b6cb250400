"""The packages, the GPU with its driver, and whether bitsandbytes computes on it. torch is loaded by what needs it."""

import importlib.metadata
import subprocess

from data_prep.disk.byte_counts import GIB
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes.machine.finding import Skipped

MOST_ERROR = 0.02  # of a 4-bit product against a plain one of the same weights, relative, in bf16

# How nvidia-smi says that the devices which a container was started with were taken from it:
# https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
LOST = "Failed to initialize NVML: Unknown Error"
OTHER_DRIVER = "Driver/library version mismatch"


def check_packages() -> str:
    """Compare the installed packages with requirements.txt."""
    pins = [line.split("==") for line in (PROJECT_ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    wrong = []
    for name, wanted in pins:
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found != wanted:
            wrong.append(f"{name} is {found}, not {wanted}")
    if wrong:
        raise InputError(f"{'; '.join(wrong)}; run pip install -r requirements.txt -c constraints.txt")
    return f"all {len(pins)} as pinned"


def check_gpu(*, needed: bool) -> str:
    """Look for a GPU that torch can use, and name it, of several the smallest, with its driver's and CUDA's version."""
    import torch

    if not needed:
        raise Skipped("this YAML trains on the CPU (use_cpu: true)")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise InputError(
            why_no_gpu(built) if built else "this torch is built without CUDA; install the one of requirements.txt"
        )
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    properties = min(cards, key=lambda card: card.total_memory)
    several = (
        f"{len(cards)} cards: accelerate launch --multi_gpu --num_processes {len(cards)} trains on all; the smallest: "
        if len(cards) > 1
        else ""
    )
    return (
        f"{several}{properties.name}, {properties.total_memory / GIB:.1f} GiB, compute capability {properties.major}."
        f"{properties.minor}; {driver_in_words()}, torch is built for CUDA {torch.version.cuda}"
    )


def driver_in_words() -> str:
    """Return the NVIDIA driver's version as nvidia-smi tells it."""
    works, said = ask_nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    return f"driver {said.splitlines()[0].strip()}" if works else "driver unknown, because nvidia-smi doesn't run"


def ask_nvidia_smi(*arguments: str) -> tuple[bool, str]:
    """Return whether nvidia-smi succeeded, and what it said; nothing where it doesn't run."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False, ""
    return done.returncode == 0, done.stdout + done.stderr


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


def check_four_bits(*, on_cpu: bool) -> str:
    """Compare bitsandbytes' product with 4-bit weights with a plain one of the same weights, unpacked."""
    import torch
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    device = torch.device("cpu" if on_cpu or not torch.cuda.is_available() else "cuda")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1024, 512, generator=generator).to(device, torch.bfloat16)
    rows = torch.randn(64, 512, generator=generator).to(device, torch.bfloat16)
    try:
        packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        product = matmul_4bit(rows, packed.t(), quant_state=state).float()
        plain = rows.float() @ dequantize_4bit(packed, state).float().t()
    except Exception as error:  # a library that fails to load its kernels raises whatever it likes
        raise InputError(f"bitsandbytes fails on {device.type}: {str(error).splitlines()[0]}") from None
    off = float((product - plain).norm() / plain.norm())
    if not off <= MOST_ERROR:
        raise InputError(f"bitsandbytes is {off:.1%} off a plain product on {device.type}; install it again")
    return f"on {device.type} within {off:.2%} of a plain one"
