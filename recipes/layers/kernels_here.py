"""Whether this machine computes with this project's own GPU kernels, or with what libraries have in their place."""

import subprocess
import sys
from functools import cache

import torch


def kernels_for(tensor: torch.Tensor) -> bool:
    """Say whether gpu_kernels computes with a tensor: one on a GPU that Triton compiles for, outside torch.compile."""
    return tensor.is_cuda and not torch.compiler.is_compiling() and _compile_on(tensor.device)


@cache
def _compile_on(device: torch.device) -> bool:
    """Say whether Triton compiles its kernels for a GPU, which takes a C compiler and Python's headers.

    Where it doesn't, that is told once.
    """
    from recipes.layers.gpu_kernels import gated_product

    try:
        gated_product(torch.ones(1, device=device), torch.ones(1, device=device))
        torch.cuda.synchronize(device)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        reason = str(error).splitlines()[0]
        print(f"without this project's GPU kernels, which makes it slower: Triton says {reason!r}", file=sys.stderr)
        return False
    return True
