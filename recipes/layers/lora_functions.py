"""LoRA on frozen linears as single autograd functions: fewer and smaller temporaries than PEFT's own modules.

The mathematics is LoRA's (arXiv 2106.09685): y = x W^T + bias + s (x A^T) B^T with W frozen. Written as one function,
neither x A^T B^T nor the sum is ever held beside y, and a 4-bit W (QLoRA, arXiv 2305.14314) is unpacked a few rows at a
time. Taking the MLP's three linears as one function, so that their product is recomputed instead of kept, is Unsloth's
idea.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from bitsandbytes.functional import QuantState

from recipes.layers.four_bit import Weight, project, project_back
from recipes.layers.gating import gated_gradients, gated_product

Gradients = tuple[torch.Tensor | None, ...]


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


class AdaptedLinear(NamedTuple):
    """One frozen linear and its adapter: `a` of shape (r, in), `b` of shape (out, r).

    `weight` has shape (out, in), or is packed in 4 bits as `state` says. To an autograd function its parts are inputs
    one by one, in this order: it sees no tensor that lies in a tuple.
    """

    weight: torch.Tensor
    state: QuantState | None
    bias: torch.Tensor | None
    a: torch.Tensor
    b: torch.Tensor
    scaling: float

    @property
    def frozen(self) -> Weight:
        """The weight with all that it takes to read it."""
        return Weight(self.weight, self.state)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the adapted output, of shape (tokens, out), for `x` of shape (tokens, in)."""
        output = project(x, self.frozen, self.bias)
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
        return add_product(project_back(gradient, self.frozen), low_rank, self.a.to(gradient.dtype), 1.0)


def lora_linear(x: torch.Tensor, linear: AdaptedLinear) -> torch.Tensor:
    """Return a linear's adapted output, of shape (…, out), for `x` of shape (…, in)."""
    return _LoraLinear.apply(x, *linear)


def lora_mlp(x: torch.Tensor, gate: AdaptedLinear, up: AdaptedLinear, down: AdaptedLinear) -> torch.Tensor:
    """Return down(silu(gate(x)) * up(x)), of the shape of `x`: (…, hidden).

    A second backward pass through the same graph is refused by autograd.
    """
    return _LoraMlp.apply(x, *gate, *up, *down)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *parts: Any) -> torch.Tensor:
        linear = AdaptedLinear(*parts)
        _save(ctx, [x], [linear])
        return linear.forward(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        (x,), (linear,) = _saved(ctx)
        gradient = gradient.reshape(-1, gradient.shape[-1])
        of_a, of_b, low_rank = linear.adapter_gradients(x.reshape(-1, x.shape[-1]), gradient)
        of_x = linear.input_gradient(gradient, low_rank).view(x.shape) if ctx.needs_input_grad[0] else None
        return of_x, *_of_parts(of_a, of_b)


class _LoraMlp(torch.autograd.Function):
    """An MLP that keeps x and the outputs of gate and up alone.

    The backward pass writes over those two, so that no more than three tensors of the inner size ever stand.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *parts: Any) -> torch.Tensor:
        each = len(parts) // 3
        linears = [AdaptedLinear(*parts[first : first + each]) for first in range(0, len(parts), each)]
        gate, up, down = linears
        rows = x.reshape(-1, x.shape[-1])
        gated, upped = gate.forward(rows), up.forward(rows)
        output = down.forward(gated_product(gated, upped))
        _save(ctx, [x, gated, upped], linears)
        return output.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        (x, gated, upped), (gate, up, down) = _saved(ctx)
        rows, gradient = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        of_down_a, of_down_b, low_rank = down.adapter_gradients(gated_product(gated, upped), gradient)
        of_gated, of_upped = gated_gradients(down.input_gradient(gradient, low_rank), gated, upped)
        of_gate_a, of_gate_b, gate_low_rank = gate.adapter_gradients(rows, of_gated)
        of_up_a, of_up_b, up_low_rank = up.adapter_gradients(rows, of_upped)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gate.input_gradient(of_gated, gate_low_rank)
            of_x = of_x.add_(up.input_gradient(of_upped, up_low_rank)).view(x.shape)
        return (
            of_x,
            *_of_parts(of_gate_a, of_gate_b),
            *_of_parts(of_up_a, of_up_b),
            *_of_parts(of_down_a, of_down_b),
        )


def _save(ctx: Any, activations: Sequence[torch.Tensor], linears: Sequence[AdaptedLinear]) -> None:
    """Keep for the backward pass what it reads: of each linear all but the bias."""
    tensors = [tensor for linear in linears for tensor in (linear.weight, linear.a, linear.b)]
    ctx.save_for_backward(*activations, *tensors)
    ctx.others = [(linear.state, linear.scaling) for linear in linears]


def _saved(ctx: Any) -> tuple[list[torch.Tensor], list[AdaptedLinear]]:
    """Return what was kept, in the same order."""
    tensors = list(ctx.saved_tensors)
    first = len(tensors) - 3 * len(ctx.others)
    weights, a, b = (tensors[first + part :: 3] for part in range(3))
    linears = [
        AdaptedLinear(weight, state, None, a, b, scaling)
        for weight, a, b, (state, scaling) in zip(weights, a, b, ctx.others, strict=True)
    ]
    return tensors[:first], linears


def _of_parts(of_a: torch.Tensor, of_b: torch.Tensor) -> Gradients:
    """Return the gradients of a linear's parts, in their order."""
    return None, None, None, of_a, of_b, None
