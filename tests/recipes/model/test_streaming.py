"""A base whose blocks stream as it is loaded is the base, holds two blocks of each kind, and leaves no trace."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules import module as torch_module
from transformers import modeling_utils
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLDecoderLayer

from recipes.adapter.lora import load_adapter
from recipes.layers.streamed_blocks import modules_of_streamed_blocks
from recipes.model import loading
from recipes.model.base import find_base
from recipes.model.forward import image_features
from recipes.model.streaming import ONE_BY_ONE, streamed_while_loading
from tests.conftest import Kept

CPU = torch.device("cpu")
IDS = torch.tensor([[3, 9, 300, 7, 21]])
GRID = torch.tensor([[1, 4, 6]])


def load(base: Path, *, load_in_4bit: bool, **placed: int) -> Any:
    return loading.load_base(
        find_base(str(base)),
        dtype=torch.float32,
        load_in_4bit=load_in_4bit,
        device=CPU,
        placement=loading.Placement(**placed),  # type: ignore[arg-type]
    )


def outputs(model: Any) -> list[torch.Tensor]:
    """The language model's states of IDS, and the tower's features of made-up patches."""
    pixels = torch.linspace(-1, 1, 24 * 1176).view(24, 1176)
    with torch.no_grad():
        hidden = model.model.language_model(inputs_embeds=model.get_input_embeddings()(IDS)).last_hidden_state
        return [hidden, image_features(model.model.visual, pixels, GRID)]


@pytest.mark.parametrize("kind", ["16 bits", "packed here", "comes in 4 bits"])
@pytest.mark.parametrize(("layers", "blocks"), [(4, 6), (3, 5), (4, 0), (0, 4)])
def test_streamed_base_is_the_base(small_base: Path, packed_base: Path, kind: str, layers: int, blocks: int) -> None:
    folder, in_4_bits = (packed_base if kind == "comes in 4 bits" else small_base), kind != "16 bits"
    expected = outputs(load(folder, load_in_4bit=in_4_bits))
    model = load(folder, load_in_4bit=in_4_bits, layers_on_host=layers, vision_blocks_on_host=blocks)
    for _ in range(2):
        assert all(torch.equal(*both) for both in zip(outputs(model), expected, strict=True))
    held = {layer.mlp.up_proj.weight.data_ptr() for layer in model.model.language_model.layers}
    assert len(held) == (4 - layers) + min(layers, 2)
    held = {block.mlp.fc1.weight.data_ptr() for block in model.model.visual.blocks}
    assert len(held) == (6 - blocks) + min(blocks, 2)


def test_tower_alone_streams(small_base: Path) -> None:
    base, pixels = find_base(str(small_base)), torch.linspace(-1, 1, 24 * 1176).view(24, 1176)
    plain, streamed = (
        loading.load_tower(base, dtype=torch.float32, device=CPU, blocks_on_host=count) for count in (0, 5)
    )
    assert torch.equal(image_features(plain, pixels, GRID), image_features(streamed, pixels, GRID))
    assert len(set(modules_of_streamed_blocks(streamed))) and not set(modules_of_streamed_blocks(plain))


def test_loading_leaves_libraries_as_they_were_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONE_BY_ONE, "0")
    warm_up = modeling_utils.caching_allocator_warmup
    with pytest.raises(KeyError), streamed_while_loading({Qwen2VLDecoderLayer: 3}, CPU):
        assert os.environ[ONE_BY_ONE] == "1" and modeling_utils.caching_allocator_warmup is not warm_up
        raise KeyError
    assert os.environ[ONE_BY_ONE] == "0" and modeling_utils.caching_allocator_warmup is warm_up
    assert not torch_module._global_parameter_registration_hooks
    assert not torch_module._global_module_registration_hooks


def test_adapter_is_never_merged_into_what_streams(kept: Kept, small_base: Path) -> None:
    with pytest.raises(RuntimeError, match="never merged into streamed weights"):
        load_adapter(load(small_base, load_in_4bit=False, layers_on_host=4), kept.run, merge=True)
