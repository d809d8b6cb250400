"""Frozen weights in 16 or 32 bits that take their adapters in as further columns and rows.

[x, x A^T] [W, s B]^T is x W^T + s (x A^T) B^T: what an adapter adds comes out of the large product itself instead of a
second pass over its output, and so does its part of the gradients. Linears of one input become one product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import silu
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP, Qwen2VLAttention

from recipes.layers.fused_lora import FusedLora, FusedMlp, add_product
from recipes.layers.joined_linears import JoinedAttention, joinable_attention

Gradients = tuple[torch.Tensor | None, ...]


def _stack(layers: Sequence[Any]) -> torch.Tensor:
    """Return the weights of linears of one input, of shape (sum of out, in + sum of r), with room for each one's s B.

    PEFT's modules keep views of their parts.
    """
    weights = [layer.parts()[0] for layer in layers]
    width, room = weights[0].shape[1], sum(layer.parts()[3].shape[0] for layer in layers)
    stack = weights[0].new_zeros(sum(map(len, weights)), width + room)
    for layer, weight, rows in zip(layers, weights, stack.split([len(weight) for weight in weights]), strict=True):
        view = rows[:, :width]
        view.copy_(weight)
        layer.get_base_layer().weight = torch.nn.Parameter(view, requires_grad=False)
    return stack


def _refresh_stack(stack: torch.Tensor, layers: Sequence[Any]) -> None:
    """Write each adapter's s B into the columns kept for it."""
    row, column = 0, layers[0].in_features
    for layer in layers:
        _, _, _, _, b, scaling = layer.parts()
        out, r = b.shape
        stack[row : row + out, column : column + r] = b * scaling
        row, column = row + out, column + r


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
    """Linears of one input; returns their outputs side by side."""

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
    """down(silu(gate(x)) * up(x)) on two weights that hold the adapters; see JoinedLoraMlp."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
        gate_a: torch.Tensor,
        gate_b: torch.Tensor,
        up_a: torch.Tensor,
        up_b: torch.Tensor,
        down_a: torch.Tensor,
        down_b: torch.Tensor,
        scalings: tuple[float, float, float],
    ) -> torch.Tensor:
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
        return of_x, None, None, *of_adapters, *of_down_weights, None


def _adapters(layers: Sequence[Any]) -> list[torch.Tensor]:
    return [part for layer in layers for part in layer.parts()[3:5]]


def _scalings(layers: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(layer.parts()[5] for layer in layers)


class JoinedLoraMlp(FusedMlp):
    """A fused MLP: gate and up are one product, and down has its adapter's A as further rows."""

    def join(self) -> None:
        """Move the frozen weights into two that have room for the adapters."""
        self.register_buffer("gate_up", _stack((self.gate_proj, self.up_proj)), persistent=False)
        weight, _, _, a, _, _ = self.down_proj.parts()
        below = torch.cat([weight, weight.new_zeros(len(a), weight.shape[1])])
        self.down_proj.get_base_layer().weight = torch.nn.Parameter(below[: len(weight)], requires_grad=False)
        self.register_buffer("down", below, persistent=False)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the adapter's values, which training changes, into the joined weights."""
        _refresh_stack(self.gate_up, (self.gate_proj, self.up_proj))
        self.down[self.down_proj.out_features :] = self.down_proj.parts()[3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the MLP's output, of the shape of `x`: (batch, length, hidden)."""
        if self.gate_proj.disable_adapters:
            return Qwen2MLP.forward(self, x)
        layers = (self.gate_proj, self.up_proj, self.down_proj)
        return _JoinedMlp.apply(x, self.gate_up, self.down, *_adapters(layers), _scalings(layers))


class JoinedLoraAttention(JoinedAttention):
    """The language model's attention with queries, keys and values, adapters and all, as one product."""

    def join(self) -> None:
        """Move the three frozen weights into one that has room for the adapters, and their biases into one."""
        layers = self._layers()
        biases = [layer.parts()[2] for layer in layers]
        self.register_buffer("qkv", _stack(layers), persistent=False)
        self.register_buffer("qkv_bias", torch.cat(biases).detach(), persistent=False)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the adapter's values, which training changes, into the joined weight."""
        _refresh_stack(self.qkv, self._layers())

    def _layers(self) -> tuple[Any, Any, Any]:
        return self.q_proj, self.k_proj, self.v_proj

    def project(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return queries, keys and values side by side, of shape (batch, length, sum of their widths)."""
        layers = self._layers()
        return _JoinedLinears.apply(hidden_states, self.qkv, self.qkv_bias, _scalings(layers), *_adapters(layers))

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend as transformers' module does; as that very module where the adapter is switched off."""
        if self.q_proj.disable_adapters:
            return Qwen2VLAttention.forward(self, *args, **kwargs)
        return super().forward(*args, **kwargs)


def join_adapters(model: torch.nn.Module, language_model: torch.nn.Module) -> None:
    """Join MLPs and attention whose linears all bear a fused adapter on a weight that isn't in 4 bits.

    The joined weights follow the adapter: every forward pass of `language_model` begins by writing its values. The last
    layer's attention stays: it computes queries for the last positions alone.
    """
    attentions = set(joinable_attention(model))
    joined = []
    for module in model.modules():
        if type(module) is FusedMlp and _unpacked(module.gate_proj, module.up_proj, module.down_proj):
            module.__class__ = JoinedLoraMlp
        elif module in attentions and _unpacked(module.q_proj, module.k_proj, module.v_proj):
            module.__class__ = JoinedLoraAttention
        else:
            continue
        module.join()
        joined.append(module)

    def refresh(*_: Any) -> None:
        for module in joined:
            module.refresh()

    if joined:
        language_model.register_forward_pre_hook(refresh)


def _unpacked(*layers: Any) -> bool:
    return all(isinstance(layer, FusedLora) and layer.parts()[1] is None for layer in layers)
