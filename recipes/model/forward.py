"""One forward pass over frames and their prompts, without waiting for the GPU anywhere in it.

transformers' own forward reads sizes and positions back from the GPU in every vision layer and at every step. Here all
that is known on the host stays there: the collator gives token ids, positions and frame sizes on the CPU.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby

import torch
from torch.nn.functional import linear
from transformers import Qwen2VLForConditionalGeneration
from transformers.vision_utils import get_vision_position_ids

from recipes.layers import host_memory
from recipes.layers.host_weights import HostHead

Batch = Mapping[str, torch.Tensor]

FEATURES_VERSION = 1  # raised with every change in what image_features gives for pixels: features are kept on disk


@torch.no_grad()
def image_features(
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

    `grids`, of shape (frames, 3), is image_features'. A CUDA graph can't wait for them from the host, and what the
    cache lets go of would be gone under it: to a graph they are an input.
    """
    parts = [_positions_of_one_size(tuple(grid), merge, device) for grid, _ in groupby(grids.tolist())]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@lru_cache(maxsize=32)
def _positions_of_one_size(grid: tuple[int, ...], merge: int, device: torch.device) -> torch.Tensor:
    return get_vision_position_ids(torch.tensor([grid]), merge).to(device)


def add_image_features(model: Qwen2VLForConditionalGeneration, batch: Batch) -> Batch:
    """Return a batch that the tower has been over, its `image_features` on the tower's device: to be used repeatedly.

    One that has features already, from the kept ones, comes back as it is.
    """
    if "image_features" in batch:
        return batch
    tower = model.model.visual
    pixels = batch["pixel_values"].to(next(tower.parameters()).device, non_blocking=True)
    others = {name: part for name, part in batch.items() if name != "pixel_values"}
    return others | {"image_features": image_features(tower, pixels, batch["image_grid_thw"])}


def language_inputs(model: Qwen2VLForConditionalGeneration, batch: Batch) -> dict[str, torch.Tensor]:
    """Return what the language model reads of a batch, on its device: embeddings with the frames' features in place.

    `batch` comes from VisionCollator and lies on the CPU; `model` is the base, with or without an adapter on it. The
    embeddings, of shape (batch, length, hidden), carry no gradient.
    """
    return insert_image_features(model, to_device(model, batch), batch["image_grid_thw"])


def to_device(model: Qwen2VLForConditionalGeneration, batch: Batch) -> dict[str, torch.Tensor]:
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
            embeddings = host_memory.lock(embeddings).to(device, non_blocking=True)
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
def insert_image_features(
    model: Qwen2VLForConditionalGeneration, inputs: Mapping[str, torch.Tensor], grids: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return what the language model reads, from to_device: the frames' features in their places.

    `text_embeds` is written over. Nothing of it waits for the device.
    """
    embeddings, marks = inputs["text_embeds"], inputs["marks"]
    if "image_features" in inputs:
        features = inputs["image_features"]
    else:
        features = image_features(model.model.visual, inputs["pixel_values"], grids, inputs["vision_positions"])
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


def rows_of_head(head: torch.nn.Module, ids: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the LM head's rows of some tokens on `device`, of shape (tokens, hidden), wherever the head lies."""
    if isinstance(head, HostHead):
        return head.rows(torch.tensor(ids)).to(device)
    return head.weight[list(ids)]
