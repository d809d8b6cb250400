"""Modules of Qwen2-VL that compute less, or in fewer kernels, than those that they stand for."""

from typing import Any

import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VLDecoderLayer,
    Qwen2VLRMSNorm,
    Qwen2VLTextModel,
    VisionAttention,
    apply_rotary_pos_emb_vision,
    rotate_half,
)


class FrameAttention(VisionAttention):
    """The vision tower's attention over frames of one size as one batched call instead of one call a frame."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor | None = None,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attend within each frame of `hidden_states`, of shape (frames, patches, width)."""
        if cu_seqlens is not None:  # called by the tower's own forward
            return super().forward(hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs)
        frames, patches, width = hidden_states.shape
        query, key, value = self.qkv(hidden_states).view(frames, patches, 3, self.num_heads, -1).unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        attended = scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale=self.scaling
        )
        return self.proj(attended.transpose(1, 2).reshape(frames, patches, width))


class LastDecoderLayer(Qwen2VLDecoderLayer):
    """The language model's last layer: nothing reads its output but the positions that answer, so it computes no other.

    Keys and values are still those of all positions. It saves what one layer costs, a twenty-eighth for the 7B.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: Any = None,
        last_positions: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return the layer's output at the last `last_positions` positions, at all if None: (batch, positions, hidden).

        `hidden_states` has shape (batch, length, hidden).
        """
        if last_positions is None:  # called by the model's own forward
            return super().forward(hidden_states, attention_mask, position_embeddings=position_embeddings, **kwargs)
        batch, length, _ = hidden_states.shape
        attention, first = self.self_attn, length - last_positions
        normed = self.input_layernorm(hidden_states)

        def heads(projected: torch.Tensor) -> torch.Tensor:
            return projected.view(batch, projected.shape[1], -1, attention.head_dim).transpose(1, 2)

        cos, sin = (part[:, None] for part in position_embeddings)
        query = heads(attention.q_proj(normed[:, first:]))
        key, value = heads(attention.k_proj(normed)), heads(attention.v_proj(normed))
        query = query * cos[:, :, first:] + rotate_half(query) * sin[:, :, first:]
        key = key * cos + rotate_half(key) * sin
        if attention_mask is None:
            mask = torch.ones(last_positions, length, dtype=torch.bool, device=key.device).tril(first)
        else:
            mask = attention_mask[:, :, first:]
        attended = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=attention.scaling, enable_gqa=True
        )
        attended = attended.transpose(1, 2).reshape(batch, last_positions, -1)
        hidden_states = hidden_states[:, first:] + attention.o_proj(attended)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class FusedRMSNorm(Qwen2VLRMSNorm):
    """The language model's norm as one kernel, which keeps its input alone; six separate ones keep fp32 copies."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalise `hidden_states`, of shape (…, hidden)."""
        return rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


def use_fused_modules(model: torch.nn.Module) -> None:
    """Have a loaded Qwen2-VL, or its vision tower alone, compute with the modules above. Weights and names stay."""
    for module in model.modules():
        if type(module) is VisionAttention:
            module.__class__ = FrameAttention
        elif type(module) is Qwen2VLRMSNorm:
            module.__class__ = FusedRMSNorm
        elif type(module) is Qwen2VLTextModel:
            module.layers[-1].__class__ = LastDecoderLayer
