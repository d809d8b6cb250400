"""One forward pass over frames and their prompts, without waiting for the GPU anywhere in it.

transformers' own forward reads sizes and positions back from the GPU in every vision layer and at every step. Here all
that is known on the host stays there: the collator gives token ids, positions and frame sizes on the CPU.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention
from transformers import Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VLDecoderLayer,
    Qwen2VLRMSNorm,
    Qwen2VLTextModel,
    VisionAttention,
    apply_rotary_pos_emb_vision,
    rotate_half,
)
from transformers.vision_utils import get_vision_position_ids

Batch = Mapping[str, torch.Tensor]

FEATURES_VERSION = 1  # raised with every change in what frame_features gives for pixels: features are kept on disk


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


@torch.no_grad()
def frame_features(
    tower: torch.nn.Module, pixel_values: torch.Tensor, grids: torch.Tensor, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what the frozen vision tower sees, of shape (visual tokens, hidden), frame after frame.

    `pixel_values` holds the frames' patches one after another, of shape (patches, 1176); `grids`, on the CPU and of
    shape (frames, 3), says how many each frame has in time, height and width. `positions` are vision_positions', which
    are looked up where they aren't given. Neighbouring frames of one size go through together. The result never
    carries a gradient.
    """
    if positions is None:
        positions = vision_positions(grids, tower.spatial_merge_size, pixel_values.device)
    parts, begin, first = [], 0, 0
    for grid, same in groupby(grids.tolist()):
        frames, patches = len(list(same)), grid[0] * grid[1] * grid[2]
        stop, last = begin + frames * patches, first + patches
        parts.append(_features_of_one_size(tower, pixel_values[begin:stop], frames, positions[first:last]))
        begin, first = stop, last
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _features_of_one_size(
    tower: torch.nn.Module, pixel_values: torch.Tensor, frames: int, position_ids: torch.Tensor
) -> torch.Tensor:
    # The patches don't overlap, so the tower's convolution over them is one matrix product, and ten times as fast.
    hidden = linear(pixel_values, tower.patch_embed.proj.weight.flatten(1)).view(frames, len(position_ids), -1)
    position_embeddings = tower.rotary_pos_emb(hidden, position_ids)
    for block in tower.blocks:
        hidden = block(hidden, None, position_embeddings=position_embeddings)
    return tower.merger(hidden)


def vision_positions(grids: torch.Tensor, merge: int, device: torch.device) -> torch.Tensor:
    """Return the positions of patches on `device`, once for neighbouring frames of one size: (patches, 2).

    `grids`, of shape (frames, 3), is frame_features'. A CUDA graph can't wait for them from the host, and what the
    cache lets go of would be gone under it: to a graph they are an input.
    """
    parts = [_positions_of_one_size(tuple(grid), merge, device) for grid, _ in groupby(grids.tolist())]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@lru_cache(maxsize=32)
def _positions_of_one_size(grid: tuple[int, ...], merge: int, device: torch.device) -> torch.Tensor:
    return get_vision_position_ids(torch.tensor([grid]), merge).to(device)


def with_features(model: Qwen2VLForConditionalGeneration, batch: Batch) -> Batch:
    """Return a batch that the tower has been over, its `image_features` on the tower's device: to be used repeatedly.

    One that has features already, from the kept ones, comes back as it is.
    """
    if "image_features" in batch:
        return batch
    tower = model.model.visual
    pixels = batch["pixel_values"].to(next(tower.parameters()).device, non_blocking=True)
    others = {name: part for name, part in batch.items() if name != "pixel_values"}
    return others | {"image_features": frame_features(tower, pixels, batch["image_grid_thw"])}


def language_inputs(model: Qwen2VLForConditionalGeneration, batch: Batch) -> dict[str, torch.Tensor]:
    """Return what the language model reads of a batch, on its device: embeddings with the frames' features in place.

    `batch` comes from VisionCollator and lies on the CPU; `model` is the base, with or without an adapter on it. The
    embeddings, of shape (batch, length, hidden), carry no gradient.
    """
    return place_frames(model, inputs_on_device(model, batch), batch["image_grid_thw"])


def inputs_on_device(model: Qwen2VLForConditionalGeneration, batch: Batch) -> dict[str, torch.Tensor]:
    """Return all that a forward pass reads of a batch, but for the frames' grids, on the model's device.

    `text_embeds` has shape (batch, length, hidden) and no frame in it yet; `marks` says where frames belong, as indices
    into its positions, row after row. Beside pixels lie their vision_positions.
    """
    device = model.model.language_model.norm.weight.device  # model.device may be the host embedding's
    ids = batch["input_ids"]
    embed = model.get_input_embeddings()
    with torch.no_grad():
        embeddings = embed(ids.to(embed.weight.device, non_blocking=True))
        if embeddings.device != device:
            embeddings = embeddings.pin_memory().to(device, non_blocking=True)
    marks = (ids.flatten() == model.config.image_token_id).nonzero().squeeze(1)
    inputs = {"text_embeds": embeddings, "marks": marks.to(device, non_blocking=True)}
    for name in ("position_ids", "attention_mask", "pixel_values", "image_features"):
        if name in batch:
            inputs[name] = batch[name].to(device, non_blocking=True)
    if "pixel_values" in inputs:
        merge = model.config.vision_config.spatial_merge_size
        inputs["vision_positions"] = vision_positions(batch["image_grid_thw"], merge, device)
    return inputs


@torch.no_grad()
def place_frames(
    model: Qwen2VLForConditionalGeneration, inputs: Mapping[str, torch.Tensor], grids: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return what the language model reads, from inputs_on_device: the frames' features in their places.

    `text_embeds` is written over. Nothing of it waits for the device.
    """
    embeddings, marks = inputs["text_embeds"], inputs["marks"]
    if "image_features" in inputs:
        features = inputs["image_features"]
    else:
        features = frame_features(model.model.visual, inputs["pixel_values"], grids, inputs["vision_positions"])
    if len(marks) != len(features):
        raise ValueError(f"{len(marks)} image tokens in the batch, but {len(features)} features")
    embeddings.view(-1, embeddings.shape[-1]).index_copy_(0, marks, features.to(embeddings.dtype))
    return {
        "inputs_embeds": embeddings,
        **{name: inputs[name] for name in ("position_ids", "attention_mask") if name in inputs},
    }


def last_hidden(
    model: Qwen2VLForConditionalGeneration, inputs: Mapping[str, torch.Tensor], positions: int
) -> torch.Tensor:
    """Return the language model's last hidden states at the last `positions` positions: (batch, positions, hidden).

    `inputs` comes from language_inputs.
    """
    outputs = model.model.language_model(
        inputs_embeds=inputs["inputs_embeds"],
        position_ids=inputs["position_ids"],
        attention_mask=inputs.get("attention_mask"),
        use_cache=False,
        last_positions=positions,
    )
    return outputs.last_hidden_state
