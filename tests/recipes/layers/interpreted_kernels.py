"""What Triton's interpreter, which needs no GPU, makes of the project's kernels: `python interpreted_kernels.py`.

It decides for all kernels as they are defined, so it has a process of its own. The last line is JSON.
"""

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from bitsandbytes.functional import dequantize_blockwise, quantize_4bit
from torch.nn.functional import silu

from recipes.layers import gpu_kernels

SHAPES = ((384, 256), (7, 128), (300, 384))  # of whole programs, of less than one, of some and a part


def unpacked(shape: tuple[int, int], blocksize: int, *, nested: bool, dtype: torch.dtype) -> bool:
    """Say whether rows that are unpacked in two parts are bitsandbytes' to the bit."""
    packed, state = quantize_4bit(torch.randn(shape), blocksize=blocksize, compress_statistics=nested, quant_type="nf4")
    absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset if nested else state.absmax
    expected = torch.ops.bitsandbytes.dequantize_4bit.default(packed.view(-1), absmax, blocksize, "nf4", shape, dtype)
    middle = shape[0] // 2
    parts = [gpu_kernels.unpack(packed, state, *part, dtype) for part in ((0, middle), (middle, shape[0]))]
    return torch.equal(torch.cat(parts), expected)


def gated(count: int) -> list[float]:
    """Return how far the gated product, and each of its gradients, is from torch's at most."""
    one, other, gradient = (torch.randn(count) for _ in range(3))
    one.requires_grad_()
    other.requires_grad_()
    expected = silu(one) * other
    expected.backward(gradient)
    found = gpu_kernels.gated_product(one.detach(), other.detach())
    of_other, of_one = gradient.clone(), other.detach().clone()
    gpu_kernels.gated_gradients(of_other, one.detach(), of_one)
    pairs = ((found, expected), (of_one, one.grad), (of_other, other.grad))
    return [float((ours - torchs).abs().max()) for ours, torchs in pairs]


def main() -> None:
    """Compare all of it."""
    torch.manual_seed(0)
    equal = {
        f"{shape}, {blocksize}, {nested}, {dtype}": unpacked(shape, blocksize, nested=nested, dtype=dtype)
        for shape in SHAPES
        for blocksize in (64, 128)
        for nested in (False, True)
        for dtype in (torch.float32, torch.float16)
    }
    print(json.dumps({"equal": equal, "gated": [gated(count) for count in (3850, 2048, 5)]}))


if __name__ == "__main__":
    main()
