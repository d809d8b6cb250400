"""LoRA on frozen linears as single autograd functions: fewer and smaller temporaries than PEFT's own modules.

The mathematics is LoRA's (arXiv 2106.09685): y = x W^T + bias + s (x A^T) B^T with W frozen. Written as one function,
neither x A^T B^T nor the sum is ever held beside y, and a 4-bit W (QLoRA, arXiv 2305.14314) is unpacked a few rows at a
time. Taking the MLP's three linears as one function, so that their product is recomputed instead of kept, is Unsloth's
idea.
"""

from typing import Any

import torch
from bitsandbytes.functional import QuantState
from torch.nn.functional import silu

from recipes.layers.four_bit import Weight, project, project_back


@torch.library.custom_op("safe_unsafe::add_product", mutates_args=["output"])
def _add_product_in_place(output: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    output.addmm_(left, right, alpha=scale)


@_add_product_in_place.register_fake
def _(output: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    return None


def add_product(output: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """Add scale * left right to `output`, and return it.

    torch.compile would make a copy of `output` first; it leaves an operator that it can't look into in its place.
    """
    if torch.compiler.is_compiling():
        _add_product_in_place(output, left, right, scale)
        return output
    return output.addmm_(left, right, alpha=scale)


class AdaptedLinear:
    """One frozen linear and its adapter inside an autograd function: `a` of shape (r, in), `b` of shape (out, r)."""

    def __init__(
        self, weight: Weight, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> None:
        self.weight, self.bias, self.a, self.b, self.scaling = weight, bias, a, b, scaling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the adapted output, of shape (tokens, out), for `x` of shape (tokens, in)."""
        output = project(x, self.weight, self.bias)
        return add_product(output, x @ self.a.to(x.dtype).t(), self.b.to(x.dtype).t(), self.scaling)

    def adapter_gradients(
        self, x: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gradients of a, of b and of s x A^T, the last of shape (tokens, r)."""
        low_rank = gradient @ self.b.to(x.dtype) * self.scaling
        gradient_b = gradient.t() @ (x @ self.a.to(x.dtype).t()) * self.scaling
        gradient_a = low_rank.t() @ x
        return gradient_a.to(self.a.dtype), gradient_b.to(self.b.dtype), low_rank

    def input_gradient(self, gradient: torch.Tensor, low_rank: torch.Tensor) -> torch.Tensor:
        """Return the gradient of x, of shape (tokens, in); `low_rank` is the last that adapter_gradients returns."""
        return add_product(project_back(gradient, self.weight), low_rank, self.a.to(gradient.dtype), 1.0)


class LoraLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        state: QuantState | None,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.state, ctx.scaling = state, scaling
        rows = x.reshape(-1, x.shape[-1])
        return AdaptedLinear((weight, state), bias, a, b, scaling).forward(rows).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        adapted = AdaptedLinear((weight, ctx.state), None, a, b, ctx.scaling)
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_a, of_b, low_rank = adapted.adapter_gradients(x.reshape(-1, x.shape[-1]), rows)
        of_x = adapted.input_gradient(rows, low_rank).view(x.shape) if ctx.needs_input_grad[0] else None
        return of_x, None, None, None, of_a, of_b, None


class LoraMlpFunction(torch.autograd.Function):
    """down(silu(gate(x)) * up(x)), keeping x and the outputs of gate and up alone.

    The backward pass writes over those two, so that no more than three tensors of the inner size ever stand; a second
    one through the same graph is refused by autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        gate: torch.Tensor,
        gate_a: torch.Tensor,
        gate_b: torch.Tensor,
        up: torch.Tensor,
        up_a: torch.Tensor,
        up_b: torch.Tensor,
        down: torch.Tensor,
        down_a: torch.Tensor,
        down_b: torch.Tensor,
        states: tuple[QuantState | None, QuantState | None, QuantState | None],
        scalings: tuple[float, float, float],
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        gated = AdaptedLinear((gate, states[0]), None, gate_a, gate_b, scalings[0]).forward(rows)
        upped = AdaptedLinear((up, states[1]), None, up_a, up_b, scalings[1]).forward(rows)
        product = silu(gated).mul_(upped)
        output = AdaptedLinear((down, states[2]), None, down_a, down_b, scalings[2]).forward(product)
        ctx.save_for_backward(x, gated, upped, gate, gate_a, gate_b, up, up_a, up_b, down, down_a, down_b)
        ctx.states, ctx.scalings = states, scalings
        return output.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gated, upped, gate, gate_a, gate_b, up, up_a, up_b, down, down_a, down_b = ctx.saved_tensors
        states, scalings = ctx.states, ctx.scalings
        rows, gradient = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        of_down = AdaptedLinear((down, states[2]), None, down_a, down_b, scalings[2])
        of_down_a, of_down_b, low_rank = of_down.adapter_gradients(silu(gated).mul_(upped), gradient)
        of_product = of_down.input_gradient(gradient, low_rank)
        of_gated = upped.mul_(of_product)
        torch.ops.aten.silu_backward.grad_input(of_gated, gated, grad_input=of_gated)
        of_upped = of_product.mul_(silu(gated, inplace=True))
        of_gate = AdaptedLinear((gate, states[0]), None, gate_a, gate_b, scalings[0])
        of_gate_a, of_gate_b, gate_low_rank = of_gate.adapter_gradients(rows, of_gated)
        of_up = AdaptedLinear((up, states[1]), None, up_a, up_b, scalings[1])
        of_up_a, of_up_b, up_low_rank = of_up.adapter_gradients(rows, of_upped)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = of_gate.input_gradient(of_gated, gate_low_rank)
            of_x = of_x.add_(of_up.input_gradient(of_upped, up_low_rank)).view(x.shape)
        of_weights = (None, of_gate_a, of_gate_b, None, of_up_a, of_up_b, None, of_down_a, of_down_b)
        return of_x, *of_weights, None, None
