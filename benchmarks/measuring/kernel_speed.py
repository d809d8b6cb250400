"""This project's GPU kernels beside what libraries have in their place, at the 7B's sizes: times, and whether equal."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from bitsandbytes.functional import dequantize_blockwise, quantize_4bit
from torch.nn.functional import silu
from triton.testing import do_bench

from benchmarks.made.drawn_frames import HEIGHT, MAX_PIXELS, WIDTH
from recipes.layers import gpu_kernels
from recipes.layers.sizes import linear_shapes, visual_tokens
from recipes.machine.memory import TEXT_TOKENS

FRAMES = (1, 8)


class Pair(NamedTuple):
    """One piece of work, the library's way and the kernel's; `compared` gives what both compute."""

    what: str
    library: Callable[[], Any]
    kernel: Callable[[], Any]
    compared: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    times: int  # that a pass of the 7B has it


def kernel_rows(text: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure each pair on this card: milliseconds of one, medians, and of a whole pass of a model of that `text`."""
    rows = []
    for pair in pairs(text):
        library, kernel = (do_bench(work, return_mode="median") for work in (pair.library, pair.kernel))
        one, other = pair.compared()
        apart = ((one.float() - other.float()).norm() / one.float().norm()).item()
        rows.append(
            {
                "what": pair.what,
                "library_ms": library,
                "kernel_ms": kernel,
                "library_pass_ms": library * pair.times,
                "kernel_pass_ms": kernel * pair.times,
                "equal": torch.equal(one, other),
                "relative_error": apart,
            }
        )
    return rows


def pairs(text: Mapping[str, Any]) -> Iterator[Pair]:
    """Yield what is compared; every call draws its data anew."""
    layers = text["num_hidden_layers"]
    for name, (out, into) in linear_shapes(text).items():
        yield unpacking(name, out, into, layers)
    tokens = visual_tokens(WIDTH, HEIGHT, MAX_PIXELS[480]) + TEXT_TOKENS
    for frames in FRAMES:
        yield from gating(frames, frames * tokens, text["intermediate_size"], layers)


def unpacking(name: str, out: int, into: int, layers: int) -> Pair:
    """Compare bitsandbytes' way from packed values to bf16 ones with the kernel."""
    packed, state = quantize_4bit(
        torch.randn(out, into, device="cuda", dtype=torch.bfloat16), compress_statistics=True, quant_type="nf4"
    )

    def library() -> torch.Tensor:
        absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset
        dequantize = torch.ops.bitsandbytes.dequantize_4bit.default
        return dequantize(packed.view(-1), absmax, state.blocksize, state.quant_type, (out, into), torch.bfloat16)

    def kernel() -> torch.Tensor:
        return gpu_kernels.unpack(packed, state, 0, out, torch.bfloat16)

    return Pair(f"unpack {name}", library, kernel, lambda: (library(), kernel()), layers)


def gating(frames: int, tokens: int, inner: int, layers: int) -> Iterator[Pair]:
    """Compare torch's kernels with the fused ones: the gated product, and its gradients in place."""
    gradient, gated, upped = (torch.randn(tokens, inner, device="cuda", dtype=torch.bfloat16) for _ in range(3))

    def product() -> torch.Tensor:
        return silu(gated).mul_(upped)

    def fused_product() -> torch.Tensor:
        return gpu_kernels.gated_product(gated, upped)

    yield Pair(f"gated product, {frames}", product, fused_product, lambda: (product(), fused_product()), layers)
    scratch = [tensor.clone() for tensor in (gradient, gated, upped)]

    def gradients(d: torch.Tensor, g: torch.Tensor, u: torch.Tensor) -> None:
        of_gated = u.mul_(d)
        torch.ops.aten.silu_backward.grad_input(of_gated, g, grad_input=of_gated)
        d.mul_(silu(g, inplace=True))

    def fresh(work: Callable[..., None]) -> torch.Tensor:
        d, g, u = (tensor.clone() for tensor in (gradient, gated, upped))
        work(d, g, u)
        return torch.stack([d, u])

    yield Pair(
        f"gated gradients, {frames}",
        lambda: gradients(*scratch),
        lambda: gpu_kernels.gated_gradients(*scratch),
        lambda: (fresh(gradients), fresh(gpu_kernels.gated_gradients)),
        layers,
    )
