"""Frozen weights, in 4 bits or not, read a few unpacked rows at a time: for a product, and for its gradient."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from bitsandbytes.functional import QuantState, dequantize_blockwise
from torch.nn.functional import linear

from recipes.layers.kernels_here import kernels_for
from recipes.layers.sizes import UNPACKED_BYTES

ROW_MULTIPLE = 128  # parts of other sizes leave the tensor cores' fast kernels: a third of the speed


class Weight(NamedTuple):
    """A frozen weight of shape (out, in): its values, or bitsandbytes' packed ones and how they were packed."""

    values: torch.Tensor
    state: QuantState | None


def unpacked_rows(
    weight: Weight, dtype: torch.dtype, *, at_once: bool = False
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield a frozen weight of shape (out, in) as (start, stop, rows [start, stop)).

    A weight in 4 bits comes a part at a time unless it is wanted `at_once`, any other whole. Who lets go of a part
    before asking for the next has one on the card at a time.
    """
    packed, state = weight
    if state is None:
        yield 0, packed.shape[0], packed
        return
    rows, columns = state.shape
    unpack = _unpacker(packed, state, dtype)
    step = rows if at_once else _rows_at_once(rows, columns, state.blocksize, dtype)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield start, stop, unpack(start, stop)


def _unpacker(packed: torch.Tensor, state: QuantState, dtype: torch.dtype) -> Callable[[int, int], torch.Tensor]:
    """Return what unpacks rows [start, stop): a kernel of this project's where it serves, else bitsandbytes' own."""
    if state.quant_type == "nf4" and kernels_for(packed):
        from recipes.layers.gpu_kernels import unpack

        return partial(unpack, packed, state, dtype=dtype)
    absmax = state.absmax
    if state.nested:
        absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset
    flat, columns, size = packed.view(-1), state.shape[1], state.blocksize

    def unpacked(start: int, stop: int) -> torch.Tensor:
        first, last = start * columns, stop * columns
        return torch.ops.bitsandbytes.dequantize_4bit.default(
            flat[first // 2 : last // 2],
            absmax[first // size : last // size],
            size,
            state.quant_type,
            (stop - start, columns),
            dtype,
        )

    return unpacked


def _rows_at_once(rows: int, columns: int, blocksize: int, dtype: torch.dtype) -> int:
    """Return how many rows fit UNPACKED_BYTES; parts must begin where a quantisation block does."""
    if columns % blocksize:
        return rows
    fitting = UNPACKED_BYTES // (columns * dtype.itemsize)
    return min(rows, max(ROW_MULTIPLE, fitting - fitting % ROW_MULTIPLE))


def project(x: torch.Tensor, weight: Weight, bias: torch.Tensor | None) -> torch.Tensor:
    """Return x W^T + bias for `x` of shape (tokens, in)."""
    output = None
    for start, stop, rows in unpacked_rows(weight, x.dtype):
        if output is None:
            if start == 0 and stop == _out_features(weight):
                return linear(x, rows, bias)
            output = x.new_empty(len(x), _out_features(weight))
        torch.mm(x, rows.t(), out=output[:, start:stop])
        del rows
    assert output is not None
    return output if bias is None else output.add_(bias)


def project_back(gradient: torch.Tensor, weight: Weight) -> torch.Tensor:
    """Return gradient W for `gradient` of shape (tokens, out)."""
    output = None
    for start, stop, rows in unpacked_rows(weight, gradient.dtype):
        if output is None:
            output = gradient[:, start:stop] @ rows
        else:
            output.addmm_(gradient[:, start:stop], rows)
        del rows
    assert output is not None
    return output


def _out_features(weight: Weight) -> int:
    packed, state = weight
    return packed.shape[0] if state is None else state.shape[0]
