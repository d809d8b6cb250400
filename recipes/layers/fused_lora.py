"""LoRA on frozen linears as single autograd functions: fewer and smaller temporaries than PEFT's own modules.

PEFT keeps and saves the adapter; only how its modules compute is replaced. The mathematics is LoRA's (arXiv
2106.09685): y = x W^T + bias + s (x A^T) B^T with W frozen. Written as one function, neither x A^T B^T nor the sum is
ever held beside y, and a 4-bit W (QLoRA, arXiv 2305.14314) is unpacked a few rows at a time. Taking the MLP's three
linears as one function, so that their product is recomputed instead of kept, is Unsloth's idea.
"""

from collections.abc import Iterator
from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_blockwise
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit
from torch.nn.functional import linear, silu
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP

from recipes.layers.sizes import UNPACKED_BYTES

ROW_MULTIPLE = 128  # parts of other sizes leave the tensor cores' fast kernels: a third of the speed

Weight = tuple[torch.Tensor, QuantState | None]


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
    absmax = state.absmax
    if state.nested:
        absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset
    packed = packed.view(-1)
    step = rows if at_once else _rows_at_once(rows, columns, state.blocksize, dtype)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        first, last = start * columns, stop * columns
        yield (
            start,
            stop,
            torch.ops.bitsandbytes.dequantize_4bit.default(
                packed[first // 2 : last // 2],
                absmax[first // state.blocksize : last // state.blocksize],
                state.blocksize,
                state.quant_type,
                (stop - start, columns),
                dtype,
            ),
        )


def _rows_at_once(rows: int, columns: int, blocksize: int, dtype: torch.dtype) -> int:
    """Return how many rows fit UNPACKED_BYTES; parts must begin where a quantisation block does."""
    if columns % blocksize:
        return rows
    fitting = UNPACKED_BYTES // (columns * dtype.itemsize)
    return min(rows, max(ROW_MULTIPLE, fitting - fitting % ROW_MULTIPLE))


def _project(x: torch.Tensor, weight: Weight, bias: torch.Tensor | None) -> torch.Tensor:
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


def _project_back(gradient: torch.Tensor, weight: Weight) -> torch.Tensor:
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


class _Adapted:
    """One frozen linear and its adapter inside an autograd function: `a` of shape (r, in), `b` of shape (out, r)."""

    def __init__(
        self, weight: Weight, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> None:
        self.weight, self.bias, self.a, self.b, self.scaling = weight, bias, a, b, scaling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the adapted output, of shape (tokens, out), for `x` of shape (tokens, in)."""
        output = _project(x, self.weight, self.bias)
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
        return add_product(_project_back(gradient, self.weight), low_rank, self.a.to(gradient.dtype), 1.0)


class _LoraLinear(torch.autograd.Function):
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
        return _Adapted((weight, state), bias, a, b, scaling).forward(rows).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        adapted = _Adapted((weight, ctx.state), None, a, b, ctx.scaling)
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_a, of_b, low_rank = adapted.adapter_gradients(x.reshape(-1, x.shape[-1]), rows)
        of_x = adapted.input_gradient(rows, low_rank).view(x.shape) if ctx.needs_input_grad[0] else None
        return of_x, None, None, None, of_a, of_b, None


class _LoraMlp(torch.autograd.Function):
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
        gated = _Adapted((gate, states[0]), None, gate_a, gate_b, scalings[0]).forward(rows)
        upped = _Adapted((up, states[1]), None, up_a, up_b, scalings[1]).forward(rows)
        product = silu(gated).mul_(upped)
        output = _Adapted((down, states[2]), None, down_a, down_b, scalings[2]).forward(product)
        ctx.save_for_backward(x, gated, upped, gate, gate_a, gate_b, up, up_a, up_b, down, down_a, down_b)
        ctx.states, ctx.scalings = states, scalings
        return output.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gated, upped, gate, gate_a, gate_b, up, up_a, up_b, down, down_a, down_b = ctx.saved_tensors
        states, scalings = ctx.states, ctx.scalings
        rows, gradient = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        of_down = _Adapted((down, states[2]), None, down_a, down_b, scalings[2])
        of_down_a, of_down_b, low_rank = of_down.adapter_gradients(silu(gated).mul_(upped), gradient)
        of_product = of_down.input_gradient(gradient, low_rank)
        of_gated = upped.mul_(of_product)
        torch.ops.aten.silu_backward.grad_input(of_gated, gated, grad_input=of_gated)
        of_upped = of_product.mul_(silu(gated, inplace=True))
        of_gate = _Adapted((gate, states[0]), None, gate_a, gate_b, scalings[0])
        of_gate_a, of_gate_b, gate_low_rank = of_gate.adapter_gradients(rows, of_gated)
        of_up = _Adapted((up, states[1]), None, up_a, up_b, scalings[1])
        of_up_a, of_up_b, up_low_rank = of_up.adapter_gradients(rows, of_upped)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = of_gate.input_gradient(of_gated, gate_low_rank)
            of_x = of_x.add_(of_up.input_gradient(of_upped, up_low_rank)).view(x.shape)
        of_weights = (None, of_gate_a, of_gate_b, None, of_up_a, of_up_b, None, of_down_a, of_down_b)
        return of_x, *of_weights, None, None


class FusedLora:
    """What both of the fused modules below share: PEFT's parts under short names."""

    def parts(self: Any) -> tuple[torch.Tensor, QuantState | None, torch.Tensor | None, Any, Any, float]:
        """Return (weight, its quantisation, bias, A, B, scaling) of the one active adapter."""
        (name,) = self.active_adapters
        base = self.get_base_layer()
        return (
            base.weight,
            getattr(base.weight, "quant_state", None),
            base.bias,
            self.lora_A[name].weight,
            self.lora_B[name].weight,
            self.scaling[name],
        )

    def forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute as PEFT's module would, for `x` of shape (…, in)."""
        if self.disable_adapters:
            return self.base_layer(x)
        return _LoraLinear.apply(x, *self.parts())


class FusedLinear(FusedLora, PeftLinear):
    """PEFT's LoRA linear on 16 or 32-bit weights, computed as one function."""


class FusedLinear4bit(FusedLora, PeftLinear4bit):
    """PEFT's LoRA linear on 4-bit weights, computed as one function."""


class FusedMlp(Qwen2MLP):
    """A decoder layer's MLP whose three linears all bear an adapter, computed as one function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the MLP's output, of the shape of `x`: (batch, length, hidden)."""
        if self.gate_proj.disable_adapters:
            return super().forward(x)
        layers = [layer.parts() for layer in (self.gate_proj, self.up_proj, self.down_proj)]
        tensors = [part for weight, _, _, a, b, _ in layers for part in (weight, a, b)]
        return _LoraMlp.apply(x, *tensors, tuple(layer[1] for layer in layers), tuple(layer[5] for layer in layers))


_FUSED = {PeftLinear: FusedLinear, PeftLinear4bit: FusedLinear4bit}


def fuse_lora(model: torch.nn.Module) -> None:
    """Have the LoRA modules of a PEFT model compute as fused functions, wherever they are plain: see _is_plain.

    Names, parameters and saved files stay PEFT's. Calling it again changes nothing.
    """
    for module in model.modules():
        fused = _FUSED.get(type(module))
        if fused and _is_plain(module):
            module.__class__ = fused
    for module in model.modules():
        if type(module) is Qwen2MLP and all(
            isinstance(layer, FusedLora) for layer in (module.gate_proj, module.up_proj, module.down_proj)
        ):
            module.__class__ = FusedMlp


def _is_plain(module: Any) -> bool:
    """Say whether a LoRA module is W, A, B and a scaling alone: no dropout, no bias of B, no variant such as DoRA."""
    if module.lora_variant or any(module.lora_bias.values()) or module.fan_in_fan_out:
        return False
    return all(isinstance(dropout, torch.nn.Identity) for dropout in module.lora_dropout.values())
