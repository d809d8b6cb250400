"""Triton kernels for what libraries take more passes over the card's memory for, or slower ones: see kernels_here."""

import torch
import triton
import triton.language as tl
from bitsandbytes.functional import QuantState

# Found by measurement on an H100, whole and cut down to 8 of its multiprocessors (benchmarks/README.md).
BLOCKS_AT_ONCE = 64  # quantisation blocks that one program unpacks
WARPS = 4
ELEMENTS_AT_ONCE = 2048  # of an elementwise kernel's program


@triton.jit
def _unpack(  # type: ignore[no-untyped-def]
    packed,
    absmax,
    absmax_code,
    absmax_scales,
    absmax_offset,
    code,
    output,
    first,
    blocks,
    at_once: tl.constexpr,
    pairs: tl.constexpr,
    blocks_a_scale: tl.constexpr,
):
    """Write `blocks` quantisation blocks from number `first` on, of `pairs` bytes each: high nibble, then low."""
    block = tl.program_id(0) * at_once + tl.arange(0, at_once)
    inside = block < blocks
    number = first + block
    if blocks_a_scale:
        level = tl.load(absmax + number, mask=inside, other=0).to(tl.int32)
        scale = tl.load(absmax_scales + number // blocks_a_scale, mask=inside, other=0.0)
        largest = tl.load(absmax_code + level) * scale + tl.load(absmax_offset)
    else:
        largest = tl.load(absmax + number, mask=inside, other=0.0)
    place = number.to(tl.int64)[:, None] * pairs + tl.arange(0, pairs)[None, :]
    byte = tl.load(packed + place, mask=inside[:, None], other=0).to(tl.int32)
    codes = tl.load(code + tl.arange(0, 16))
    flat = tl.reshape(byte, (at_once * pairs,))
    high = tl.reshape(tl.gather(codes, flat >> 4, 0), (at_once, pairs)) * largest[:, None]
    low = tl.reshape(tl.gather(codes, flat & 15, 0), (at_once, pairs)) * largest[:, None]
    to = block.to(tl.int64)[:, None] * (2 * pairs) + tl.arange(0, 2 * pairs)[None, :]
    tl.store(output + to, tl.interleave(high, low).to(output.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _gated_product(gated, upped, output, count, at_once: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    inside = place < count
    g = tl.load(gated + place, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(upped + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + place, (g * tl.sigmoid(g) * u).to(output.dtype.element_ty), mask=inside)


@triton.jit
def _gated_gradients(gradient, gated, upped, count, at_once: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    inside = place < count
    d = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gated + place, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(upped + place, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(g)
    of_gated = d * u * share * (1 + g * (1 - share))
    tl.store(upped + place, of_gated.to(upped.dtype.element_ty), mask=inside)
    tl.store(gradient + place, (d * g * share).to(gradient.dtype.element_ty), mask=inside)


def unpack(packed: torch.Tensor, state: QuantState, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
    """Return rows [start, stop) of a weight in NF4, of shape (rows, in), to the bit as bitsandbytes unpacks them.

    A quantisation block begins at `start`, and one ends at `stop`. `packed` holds two values a byte, as Linear4bit's.
    """
    columns, size = state.shape[1], state.blocksize
    output = packed.new_empty(stop - start, columns, dtype=dtype)
    blocks = output.numel() // size
    nested = state.state2
    _unpack[triton.cdiv(blocks, BLOCKS_AT_ONCE),](
        packed,
        state.absmax,
        nested.code if nested else None,
        nested.absmax if nested else None,
        state.offset if nested else None,
        state.code,
        output,
        start * columns // size,
        blocks,
        at_once=BLOCKS_AT_ONCE,
        pairs=size // 2,
        blocks_a_scale=nested.blocksize if nested else 0,
        num_warps=WARPS,
        enable_fp_fusion=False,  # bitsandbytes scales and shifts in two kernels, and so rounds twice
    )
    return output


def gated_product(gated: torch.Tensor, upped: torch.Tensor) -> torch.Tensor:
    """Return silu(gated) upped, of their shape and dtype. Both are contiguous."""
    output = torch.empty_like(gated)
    count = output.numel()
    _gated_product[triton.cdiv(count, ELEMENTS_AT_ONCE),](gated, upped, output, count, at_once=ELEMENTS_AT_ONCE)
    return output


def gated_gradients(gradient: torch.Tensor, gated: torch.Tensor, upped: torch.Tensor) -> None:
    """Turn the `gradient` of silu(gated) upped into that of `upped`, and `upped` into that of `gated`, in place.

    All three have one shape and dtype, and are contiguous.
    """
    count = gradient.numel()
    _gated_gradients[triton.cdiv(count, ELEMENTS_AT_ONCE),](gradient, gated, upped, count, at_once=ELEMENTS_AT_ONCE)
