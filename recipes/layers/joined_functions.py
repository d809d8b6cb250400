"""Autograd functions of frozen weights in 16 or 32 bits that hold their adapters as further columns and rows.

[x, x A^T] [W, s B]^T is x W^T + s (x A^T) B^T: what an adapter adds comes out of the large product itself instead of a
second pass over its output, and so does its part of the gradients. Linears of one input become one product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import silu

from recipes.layers.lora_functions import AdaptedLinear, Gradients, add_product


def joined_linears(
    x: torch.Tensor, stack: torch.Tensor, bias: torch.Tensor | None, linears: Sequence[AdaptedLinear]
) -> torch.Tensor:
    """Return the outputs of linears of one input side by side, of shape (…, sum of out), for `x` of shape (…, in).

    `stack` holds their weights one below the other and each one's s B beside its own: (sum of out, in + sum of r).
    """
    return _JoinedLinears.apply(x, stack, bias, _scalings(linears), *_adapters(linears))


def joined_mlp(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, linears: Sequence[AdaptedLinear]
) -> torch.Tensor:
    """Return down(silu(gate(x)) * up(x)), of the shape of `x`: (…, hidden).

    `linears` are gate, up and down. `gate_up` is joined_linears' stack of the first two; `down` holds the third one's
    weight and below it its A: (hidden + r, inner).
    """
    return _JoinedMlp.apply(x, gate_up, down, _scalings(linears), *_adapters(linears))


def _scalings(linears: Sequence[AdaptedLinear]) -> tuple[float, ...]:
    return tuple(linear.scaling for linear in linears)


def _adapters(linears: Sequence[AdaptedLinear]) -> list[torch.Tensor]:
    return [tensor for linear in linears for tensor in (linear.a, linear.b)]


def _stacked_product(
    rows: torch.Tensor, stack: torch.Tensor, a: Sequence[torch.Tensor], bias: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the linears' outputs side by side, of shape (tokens, sum of out), and x A^T of all of them."""
    low_rank = rows @ torch.cat(list(a)).to(rows.dtype).t()
    widened = torch.cat([rows, low_rank], dim=1)
    return (widened @ stack.t() if bias is None else torch.addmm(bias, widened, stack.t())), low_rank


def _stacked_gradients(
    rows: torch.Tensor,
    low_rank: torch.Tensor,
    gradient: torch.Tensor,
    stack: torch.Tensor,
    a: Sequence[torch.Tensor],
    outs: Sequence[int],
    scalings: Sequence[float],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the gradient of x, of shape (tokens, in), and those of every A and B, one linear after the other."""
    width, ranks = rows.shape[1], [len(each) for each in a]
    of_b = (gradient.t() @ low_rank).split(list(outs))
    of_x_and_low_rank = gradient @ stack
    of_low_rank = of_x_and_low_rank[:, width:].contiguous()
    of_a = (of_low_rank.t() @ rows).split(ranks)
    of_x = add_product(of_x_and_low_rank[:, :width], of_low_rank, torch.cat(list(a)).to(rows.dtype), 1.0)
    of_adapters = []
    for number, scaling in enumerate(scalings):
        own = of_b[number].split(ranks, dim=1)[number]
        of_adapters += [of_a[number].to(a[number].dtype), (own * scaling).to(a[number].dtype)]
    return of_x, of_adapters


class _JoinedLinears(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        stack: torch.Tensor,
        bias: torch.Tensor | None,
        scalings: tuple[float, ...],
        *adapters: torch.Tensor,
    ) -> torch.Tensor:
        a, b = adapters[::2], adapters[1::2]
        output, low_rank = _stacked_product(x.reshape(-1, x.shape[-1]), stack, a, bias)
        ctx.save_for_backward(x, low_rank, stack, *a)
        ctx.scalings, ctx.outs = scalings, [len(each) for each in b]
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        x, low_rank, stack, *a = ctx.saved_tensors
        rows, gradient = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        of_x, of_adapters = _stacked_gradients(rows, low_rank, gradient, stack, a, ctx.outs, ctx.scalings)
        return of_x.reshape(x.shape) if ctx.needs_input_grad[0] else None, None, None, None, *of_adapters


class _JoinedMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
        scalings: tuple[float, ...],
        *adapters: torch.Tensor,
    ) -> torch.Tensor:
        gate_a, _, up_a, _, _, down_b = adapters
        gated_upped, low_rank = _stacked_product(x.reshape(-1, x.shape[-1]), gate_up, (gate_a, up_a))
        gated, upped = gated_upped.chunk(2, dim=1)
        output = (silu(gated) * upped) @ down.t()
        hidden = x.shape[-1]
        down_low_rank = output[:, hidden:].contiguous()
        output = add_product(output[:, :hidden], down_low_rank, down_b.to(x.dtype).t(), scalings[2])
        ctx.save_for_backward(x, low_rank, gated_upped, down_low_rank, gate_up, down, gate_a, up_a, down_b)
        ctx.scalings = scalings
        return output.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        x, low_rank, gated_upped, down_low_rank, gate_up, down, gate_a, up_a, down_b = ctx.saved_tensors
        of_down = ctx.scalings[2]
        rows, gradient = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, x.shape[-1])
        gated, upped = gated_upped.chunk(2, dim=1)
        of_down_low_rank = gradient @ down_b.to(x.dtype) * of_down
        of_down_b = gradient.t() @ down_low_rank * of_down
        of_product = torch.cat([gradient, of_down_low_rank], dim=1) @ down
        of_down_a = of_down_low_rank.t() @ (silu(gated) * upped)
        of_gated_upped = torch.cat(
            [torch.ops.aten.silu_backward(of_product * upped, gated), of_product * silu(gated)], dim=1
        )
        outs = (gated.shape[1], upped.shape[1])
        of_x, of_adapters = _stacked_gradients(
            rows, low_rank, of_gated_upped, gate_up, (gate_a, up_a), outs, ctx.scalings[:2]
        )
        of_down_weights = (of_down_a.to(gate_a.dtype), of_down_b.to(gate_a.dtype))
        of_x = of_x.reshape(x.shape) if ctx.needs_input_grad[0] else None
        return of_x, None, None, None, *of_adapters, *of_down_weights
