"""What is in 4 bits is what was asked for, and computes as it does unpacked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit

from recipes.model import loading
from recipes.model.base import find_base
from recipes.model.quantized import quantized_modules, unpack_quantized
from tests.made_bases import write_packed
from tests.recipes.model.test_loading import CPU, load, logits_of


def test_language_model_is_in_4_bits_and_the_vision_tower_in_bf16(small_base: Path) -> None:
    model = load(small_base, dtype=torch.bfloat16)
    quantized = quantized_modules(model)
    assert len(quantized) == 7 * 4
    assert all(name.startswith("model.language_model.layers.") for name in quantized)
    assert {weight.dtype for weight in model.model.visual.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight.dtype == torch.bfloat16
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    assert (weight.quant_state.quant_type, weight.quant_state.nested, weight.dtype) == ("nf4", True, torch.uint8)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kept", [["visual", "lm_head"], ["model.visual"], ["model.visual", "lm_head", "q_proj"]])
def test_wrong_skip_list_is_noticed(small_base: Path, monkeypatch: pytest.MonkeyPatch, kept: list[str]) -> None:
    monkeypatch.setattr("recipes.model.quantized.KEPT_IN_16_BITS", kept)
    with pytest.raises(RuntimeError, match="quantised other modules than expected"):
        load(small_base)


def load_packed(folder: Path, dtype: torch.dtype = torch.float32, **how: Any) -> Any:
    return loading.load_base(find_base(str(folder)), dtype=dtype, load_in_4bit=True, device=CPU, **how)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_base_that_comes_in_4_bits_is_the_base_packed_here(
    small_base: Path, packed_base: Path, dtype: torch.dtype
) -> None:
    ours, theirs = load(small_base, dtype=torch.float32), load_packed(packed_base, dtype)
    for name, module in quantized_modules(theirs).items():
        own = ours.get_submodule(name)
        assert torch.equal(module.weight, own.weight)
        assert module.weight.quant_state.dtype == module.compute_dtype == dtype
        assert own.weight.quant_state.dtype == torch.float32
    assert {weight.dtype for weight in theirs.model.visual.parameters()} == {dtype}
    assert theirs.config.tie_word_embeddings is False and theirs.lm_head.weight.dtype == dtype
    if dtype == torch.float32:
        assert torch.equal(logits_of(theirs), logits_of(ours))
    unpack_quantized(theirs, torch.float32)
    unpack_quantized(ours, torch.float32)
    layer = "model.language_model.layers.3.mlp.down_proj.weight"
    assert torch.equal(theirs.get_parameter(layer), ours.get_parameter(layer))


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_packing_of_another_kind_computes_as_plain_modules_do(
    small_base: Path, tmp_path: Path, quant_type: str
) -> None:
    """Single quantisation, names as newer versions save them, the dtype it was made from neither of ours, two files."""
    folder = tmp_path / "packed"
    save = {"save_original_format": False, "max_shard_size": "6MB"}
    write_packed(small_base, folder, bnb_4bit_quant_type=quant_type, bnb_4bit_compute_dtype=torch.float16, save=save)
    model = load_packed(folder)
    name, module = next(iter(quantized_modules(model).items()))
    assert (module.weight.quant_state.quant_type, module.weight.quant_state.nested) == (quant_type, False)
    x = torch.randn(5, module.in_features)
    weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
    expected = torch.nn.functional.linear(x, weight, module.bias)
    torch.testing.assert_close(module(x), expected)
    unpack_quantized(model, torch.float32)
    torch.testing.assert_close(model.get_submodule(name)(x), expected)


def test_unpacked_base_computes_the_same(small_base: Path) -> None:
    model = load(small_base)
    layer = model.model.language_model.layers[1].mlp.up_proj
    x = torch.randn(5, layer.in_features)
    expected = layer(x)
    unpack_quantized(model, torch.float32)
    assert not quantized_modules(model)
    torch.testing.assert_close(model.model.language_model.layers[1].mlp.up_proj(x), expected, rtol=1e-5, atol=1e-6)
