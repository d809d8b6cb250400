"""Whether this machine computes with this project's own GPU kernels, or with what libraries have in their place."""

import sys
from functools import cache

import torch
from bitsandbytes.functional import quantize_4bit


def kernels_for(tensor: torch.Tensor) -> bool:
    """Say whether gpu_kernels computes with a tensor: one on a GPU that Triton compiles for, outside torch.compile."""
    return tensor.is_cuda and not torch.compiler.is_compiling() and triton_compiles_on(tensor.device)


@cache
def triton_compiles_on(device: torch.device) -> bool:
    """Say whether Triton compiles kernels for a GPU, which takes a C compiler and Python's headers.

    Each of gpu_kernels is tried. Where one fails, that is told once. Raises torch.OutOfMemoryError where the card is
    too full to tell.
    """
    try:
        from recipes.layers.gpu_kernels import gated_gradients, gated_product, unpack

        for dtype in (torch.bfloat16, torch.float32):
            ones = torch.ones(64, 64, device=device, dtype=dtype)
            with torch.cuda.device_of(ones):  # Triton launches on the current card, wherever its tensors lie
                gated_product(ones, ones)
                gated_gradients(ones, ones.clone(), ones.clone())
                packed, state = quantize_4bit(ones, compress_statistics=True, quant_type="nf4")
                unpack(packed, state, 0, len(ones), dtype)
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton raises what its parts do, from gcc's exit status to an assertion
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(
            f"without this project's GPU kernels, which makes it slower: Triton says {reason!r}; it needs gcc and "
            "Python's headers (python3-dev)",
            file=sys.stderr,
        )
        return False
    return True
