"""Linears of one input as one product: queries, keys and values, and the MLP's gate and up.

Two of the 7B's three attention projections are so narrow that a large card computes them at a fraction of its speed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear, silu
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP, Qwen2VLAttention, apply_rotary_pos_emb

from recipes.layers.fused_modules import LastDecoderLayer


class JoinedAttention(Qwen2VLAttention):
    """The language model's attention with queries, keys and values as one product."""

    qkv: torch.Tensor
    qkv_bias: torch.Tensor

    @torch.no_grad()
    def join(self) -> None:
        """Move the three frozen weights into one, and their biases into one."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        self.register_buffer("qkv", _stack(layers), persistent=False)
        self.register_buffer("qkv_bias", torch.cat([layer.bias for layer in layers]), persistent=False)

    def project(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return queries, keys and values side by side, of shape (batch, length, sum of their widths)."""
        return linear(hidden_states, self.qkv, self.qkv_bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend within `hidden_states`, of shape (batch, length, hidden), as transformers' module does."""
        if past_key_values is not None or position_embeddings is None:
            return super().forward(
                hidden_states,
                attention_mask,
                position_embeddings=position_embeddings,
                past_key_values=past_key_values,
                **kwargs,
            )
        widths = [layer.out_features for layer in (self.q_proj, self.k_proj, self.v_proj)]
        batch, length, _ = hidden_states.shape
        query, key, value = (
            part.view(batch, length, -1, self.head_dim).transpose(1, 2)
            for part in self.project(hidden_states).split(widths, dim=-1)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        value = value.contiguous()  # kept for a backward pass, a view would keep the whole product alive
        attended, _ = sdpa_attention_forward(self, query, key, value, attention_mask, scaling=self.scaling)
        return self.o_proj(attended.reshape(batch, length, -1)), None


class JoinedMlp(Qwen2MLP):
    """The language model's MLP with gate and up as one product."""

    gate_up: torch.Tensor

    @torch.no_grad()
    def join(self) -> None:
        """Move the two frozen weights into one."""
        self.register_buffer("gate_up", _stack((self.gate_proj, self.up_proj)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the MLP's output, of the shape of `x`: (batch, length, hidden)."""
        gated, upped = linear(x, self.gate_up).chunk(2, dim=-1)
        return self.down_proj(silu(gated) * upped)


def joinable_attention(model: torch.nn.Module) -> list[Qwen2VLAttention]:
    """Return the attentions that JoinedAttention computes like.

    The last layer's isn't among them: it computes queries for the last positions alone.
    """
    last = {layer.self_attn for layer in model.modules() if isinstance(layer, LastDecoderLayer)}
    return [
        module
        for module in model.modules()
        if type(module) is Qwen2VLAttention and module not in last and module.config._attn_implementation == "sdpa"
    ]


def join_linears(model: torch.nn.Module) -> None:
    """Join attention and MLPs of a model whose linears are plain: neither in 4 bits nor with an adapter on them."""
    for attention in joinable_attention(model):
        attention.__class__ = JoinedAttention
        attention.join()
    for module in model.modules():
        if type(module) is Qwen2MLP:
            module.__class__ = JoinedMlp
            module.join()


def _stack(layers: Sequence[torch.nn.Linear]) -> torch.Tensor:
    """Return the layers' weights, of shape (sum of out, in); the layers keep views of their parts."""
    stack = torch.cat([layer.weight for layer in layers])
    for layer, rows in zip(layers, stack.split([layer.out_features for layer in layers]), strict=True):
        layer.weight = torch.nn.Parameter(rows, requires_grad=False)
    return stack
