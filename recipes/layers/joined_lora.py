"""Attention and MLPs whose frozen weights take their adapters in, and with that become fewer and larger products."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP, Qwen2VLAttention

from recipes.layers.fused_lora import FusedLora, FusedMlp
from recipes.layers.joined_functions import joined_linears, joined_mlp
from recipes.layers.joined_linears import JoinedAttention, joinable_attention
from recipes.layers.streamed_blocks import modules_of_streamed_blocks


def _stack(layers: Sequence[Any]) -> torch.Tensor:
    """Return the weights of linears of one input, of shape (sum of out, in + sum of r), with room for each one's s B.

    PEFT's modules keep views of their parts.
    """
    linears = [layer.parts() for layer in layers]
    weights = [linear.weight for linear in linears]
    width, room = weights[0].shape[1], sum(len(linear.a) for linear in linears)
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
        linear = layer.parts()
        out, r = linear.b.shape
        stack[row : row + out, column : column + r] = linear.b * linear.scaling
        row, column = row + out, column + r


class JoinedLoraMlp(FusedMlp):
    """A fused MLP: gate and up are one product, and down has its adapter's A as further rows."""

    def join(self) -> None:
        """Move the frozen weights into two that have room for the adapters."""
        self.register_buffer("gate_up", _stack((self.gate_proj, self.up_proj)), persistent=False)
        down = self.down_proj.parts()
        extended = torch.cat([down.weight, down.weight.new_zeros(len(down.a), down.weight.shape[1])])
        self.down_proj.get_base_layer().weight = torch.nn.Parameter(extended[: len(down.weight)], requires_grad=False)
        self.register_buffer("down", extended, persistent=False)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the adapter's values, which training changes, into the joined weights."""
        _refresh_stack(self.gate_up, (self.gate_proj, self.up_proj))
        self.down[self.down_proj.out_features :] = self.down_proj.parts().a

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the MLP's output, of the shape of `x`: (batch, length, hidden)."""
        if self.gate_proj.disable_adapters:
            return Qwen2MLP.forward(self, x)
        layers = (self.gate_proj, self.up_proj, self.down_proj)
        return joined_mlp(x, self.gate_up, self.down, [layer.parts() for layer in layers])


class JoinedLoraAttention(JoinedAttention):
    """The language model's attention with queries, keys and values, adapters and all, as one product."""

    def join(self) -> None:
        """Move the three frozen weights into one that has room for the adapters, and their biases into one."""
        layers = self._layers()
        biases = [layer.parts().bias for layer in layers]
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
        return joined_linears(hidden_states, self.qkv, self.qkv_bias, [layer.parts() for layer in self._layers()])

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend as transformers' module does; as that very module where the adapter is switched off."""
        if self.q_proj.disable_adapters:
            return Qwen2VLAttention.forward(self, *args, **kwargs)
        return super().forward(*args, **kwargs)


def join_adapters(model: torch.nn.Module, language_model: torch.nn.Module) -> None:
    """Join MLPs and attention whose linears all bear a fused adapter on a weight that isn't in 4 bits.

    The joined weights follow the adapter: every forward pass of `language_model` begins by writing its values. The last
    layer's attention stays: it computes queries for the last positions alone. So do streamed layers: their weights are
    on the host as they are.
    """
    attentions, streamed = set(joinable_attention(model)), set(modules_of_streamed_blocks(model))
    joined = []
    for module in model.modules():
        if module in streamed:
            continue
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
    return all(isinstance(layer, FusedLora) and layer.parts().state is None for layer in layers)
