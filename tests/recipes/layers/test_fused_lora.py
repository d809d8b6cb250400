"""LoRA as one function against PEFT's own modules, in 4 bits and unpacked."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import linear

from recipes.adapter.lora import lora_config
from recipes.layers import four_bit
from recipes.layers.four_bit import Weight, unpacked_rows
from recipes.layers.fused_lora import FusedLinear4bit, FusedLora, FusedMlp, fuse_lora
from recipes.layers.joined_lora import JoinedLoraAttention, JoinedLoraMlp, join_adapters
from recipes.layers.sizes import LLM_LINEARS
from recipes.model import loading
from recipes.model.base import find_base
from recipes.model.quantized import unpack_quantized

Gradients = dict[str, torch.Tensor]


def adapted(small_base: Path, *, dropout: float = 0.0, unpack: bool = False) -> Any:
    """The small base with an adapter whose weights are all random, so that every gradient has something to say."""
    base = loading.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu")
    )
    if unpack:
        unpack_quantized(base, torch.float32)
    torch.manual_seed(0)
    config = lora_config(r=4, alpha=8, dropout=dropout, target_modules=LLM_LINEARS, use_rslora=False)
    config.init_lora_weights = False
    return get_peft_model(base, config).train()


def layer_of(model: Any) -> Any:
    return model.get_base_model().model.language_model.layers[1]


def outputs_and_gradients(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Gradients]:
    module.zero_grad()
    x = x.clone().requires_grad_()
    output = module(x)
    output.backward(torch.sin(torch.arange(output.numel(), dtype=torch.float32)).view(output.shape))
    assert x.grad is not None
    return output.detach(), x.grad, {name: w.grad for name, w in module.named_parameters() if w.grad is not None}


def assert_alike(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-4, atol=1e-5)
    assert found[2].keys() == expected[2].keys()
    for name in expected[2]:
        error = (found[2][name] - expected[2][name]).norm() / expected[2][name].norm()
        assert error < 1e-5, name


@pytest.mark.parametrize("at_once", [2**40, 64 * 256 * 4], ids=["whole", "in parts"])
@pytest.mark.parametrize("unpack", [False, True], ids=["4-bit", "unpacked"])
def test_linears_and_mlp_compute_as_peft_s(
    small_base: Path, monkeypatch: pytest.MonkeyPatch, unpack: bool, at_once: int
) -> None:
    monkeypatch.setattr(four_bit, "UNPACKED_BYTES", at_once)
    monkeypatch.setattr(four_bit, "ROW_MULTIPLE", 64)
    model = adapted(small_base, unpack=unpack)
    x = torch.randn(2, 5, model.config.text_config.hidden_size)
    parts = {"q_proj": layer_of(model).self_attn.q_proj, "mlp": layer_of(model).mlp}
    expected = {name: outputs_and_gradients(module, x) for name, module in parts.items()}
    fuse_lora(model)
    join_adapters(model, model.get_base_model().model.language_model)
    assert type(parts["mlp"]) is (JoinedLoraMlp if unpack else FusedMlp)
    for name, module in parts.items():
        assert_alike(outputs_and_gradients(module, x), expected[name])


@pytest.mark.parametrize("change", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}], ids=str)
def test_what_the_functions_do_not_compute_is_left_to_peft(small_base: Path, change: dict[str, Any]) -> None:
    base = loading.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=False, device=torch.device("cpu")
    )
    torch.manual_seed(0)
    model: Any = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **change))
    for name, weight in model.named_parameters():
        if "magnitude" in name or "lora_B.default.bias" in name:
            weight.data += 0.5
    module, x = layer_of(model.eval()).self_attn.q_proj, torch.randn(3, base.config.text_config.hidden_size)
    expected = module(x)
    fuse_lora(model)
    assert not isinstance(module, FusedLora)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("padded", [False, True])
def test_joined_attention_attends_as_transformers_does(small_base: Path, padded: bool) -> None:
    model = adapted(small_base, unpack=True)
    attention = layer_of(model).self_attn
    x = torch.randn(2, 5, model.config.text_config.hidden_size)
    angles = torch.rand(2, 5, attention.head_dim)
    mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5).clone()
    mask[1, :, 1:, 0] = False

    class Attend(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            rotations = (angles.cos(), angles.sin())
            return self.attention(hidden_states, mask if padded else None, position_embeddings=rotations)[0]

    expected = outputs_and_gradients(Attend(), x)
    fuse_lora(model)
    join_adapters(model, model.get_base_model().model.language_model)
    assert type(attention) is JoinedLoraAttention
    found = outputs_and_gradients(Attend(), x)
    assert len(found[2]) == 8
    assert_alike(found, expected)


def test_last_layer_s_attention_isn_t_joined(small_base: Path) -> None:
    model = adapted(small_base, unpack=True)
    fuse_lora(model)
    language_model = model.get_base_model().model.language_model
    join_adapters(model, language_model)
    joined = [type(layer.self_attn) is JoinedLoraAttention for layer in language_model.layers]
    assert joined == [True] * (len(joined) - 1) + [False]


def test_weight_comes_in_parts_of_whole_rows(small_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bit, "UNPACKED_BYTES", 200 * 256 * 4)
    monkeypatch.setattr(four_bit, "ROW_MULTIPLE", 64)
    base_layer = layer_of(adapted(small_base)).mlp.up_proj.get_base_layer()
    weight = Weight(base_layer.weight, base_layer.weight.quant_state)
    ((_, rows, whole),) = unpacked_rows(weight, torch.float32, at_once=True)
    parts = list(unpacked_rows(weight, torch.float32))
    assert [stop - start for start, stop, _ in parts][:-1] == [192] * (len(parts) - 1)
    assert parts[-1][1] == rows == base_layer.out_features
    assert torch.equal(torch.cat([part for _, _, part in parts]), whole)
    torch.testing.assert_close(
        linear(torch.eye(base_layer.in_features), whole).t(), base_layer(torch.eye(base_layer.in_features)).t()
    )


def test_one_part_of_a_weight_stands_at_a_time(small_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bit, "UNPACKED_BYTES", 64 * 256 * 4)
    monkeypatch.setattr(four_bit, "ROW_MULTIPLE", 64)
    model = adapted(small_base)
    fuse_lora(model)
    dequantize, parts = torch.ops.bitsandbytes.dequantize_4bit.default, list[weakref.ref]()

    def watched(*arguments: Any) -> torch.Tensor:
        assert all(part() is None for part in parts)
        part = dequantize(*arguments)
        parts.append(weakref.ref(part))
        return part

    monkeypatch.setattr(torch.ops.bitsandbytes.dequantize_4bit, "default", watched)
    outputs_and_gradients(layer_of(model).mlp, torch.randn(1, 3, model.config.text_config.hidden_size))
    assert len(parts) > 2 * 3 * 2


def test_second_backward_pass_through_an_mlp_is_refused(small_base: Path) -> None:
    model = adapted(small_base)
    fuse_lora(model)
    output = layer_of(model).mlp(torch.randn(1, 3, model.config.text_config.hidden_size)).sum()
    output.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


@pytest.mark.parametrize("unpack", [False, True])
def test_compiler_sees_the_same_functions(small_base: Path, unpack: bool) -> None:
    """Traced and made functional as torch.compile does, but not turned into kernels."""
    model = adapted(small_base, unpack=unpack)
    fuse_lora(model)
    join_adapters(model, model.get_base_model().model.language_model)
    x = torch.randn(2, 5, model.config.text_config.hidden_size)
    for module in (layer_of(model).self_attn.o_proj, layer_of(model).mlp):
        expected = outputs_and_gradients(module, x)
        module.compile(backend="aot_eager", dynamic=False)
        assert_alike(outputs_and_gradients(module, x), expected)


@pytest.mark.parametrize("unpack", [False, True])
def test_disabled_adapter_leaves_the_base(small_base: Path, unpack: bool) -> None:
    model = adapted(small_base, unpack=unpack)
    x = torch.randn(2, 5, model.config.text_config.hidden_size)
    with torch.no_grad(), model.disable_adapter():
        expected = layer_of(model).mlp(x)
    fuse_lora(model)
    join_adapters(model, model.get_base_model().model.language_model)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(layer_of(model).mlp(x), expected)
    with torch.no_grad():
        assert (layer_of(model).mlp(x) - expected).abs().max() > 1e-2


def test_joined_weights_follow_the_adapter(small_base: Path) -> None:
    model = adapted(small_base, unpack=True)
    fuse_lora(model)
    language_model = model.get_base_model().model.language_model
    join_adapters(model, language_model)
    embeddings = torch.randn(1, 6, model.config.text_config.hidden_size)
    with torch.no_grad():
        before = language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.zero_()
        after = language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        with model.disable_adapter():
            expected = language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        torch.testing.assert_close(after, expected)
    assert (after - before).abs().max() > 1e-2


def test_dropout_leaves_peft_s_own_modules(small_base: Path) -> None:
    model = adapted(small_base, dropout=0.1)
    fuse_lora(model)
    assert not any(isinstance(module, FusedLinear4bit | FusedMlp) for module in model.modules())


def test_adapter_in_16_bits_gets_gradients_in_16_bits(small_base: Path) -> None:
    model = adapted(small_base)
    fuse_lora(model)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.bfloat16()
    mlp = layer_of(model).mlp
    _, _, gradients = outputs_and_gradients(mlp, torch.randn(1, 3, model.config.text_config.hidden_size))
    assert {gradient.dtype for gradient in gradients.values()} == {torch.bfloat16}
    assert len(gradients) == 6
