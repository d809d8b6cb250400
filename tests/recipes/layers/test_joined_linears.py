"""Queries, keys and values as one product, gate and up as one, against transformers' own modules."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.layers.joined_linears import JoinedAttention, JoinedMlp, join_linears
from recipes.model import loading
from recipes.model.base import find_base


@pytest.fixture(scope="module")
def base(small_base: Path) -> Any:
    """The small base twice: as it is, and joined."""

    def load() -> Any:
        return loading.load_base(
            find_base(str(small_base)), dtype=torch.float32, load_in_4bit=False, device=torch.device("cpu")
        )

    joined = load()
    join_linears(joined)
    return load(), joined


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_joined_model_gives_the_same_logits(base: Any, padded: bool) -> None:
    plain, joined = base
    ids = torch.arange(2 * 12).view(2, 12) + 300
    mask = torch.ones_like(ids)
    if padded:
        mask[1, :5] = 0
    expected, found = (model(input_ids=ids, attention_mask=mask).logits for model in (plain, joined))
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)


def test_joined_model_generates_the_same(base: Any) -> None:
    """With keys and values kept from earlier steps it computes as transformers' own."""
    plain, joined = base
    ids = torch.arange(12)[None] + 300
    expected, found = (model.generate(input_ids=ids, max_new_tokens=6, do_sample=False) for model in (plain, joined))
    assert torch.equal(found, expected)


def test_all_but_the_last_attention_is_joined_and_no_weight_is_held_twice(base: Any) -> None:
    _, joined = base
    layers = joined.model.language_model.layers
    assert [type(layer.self_attn) is JoinedAttention for layer in layers] == [True] * (len(layers) - 1) + [False]
    assert all(type(layer.mlp) is JoinedMlp for layer in layers)
    for stack, parts in (
        (layers[0].self_attn.qkv, ("q_proj", "k_proj", "v_proj")),
        (layers[0].mlp.gate_up, ("gate_proj", "up_proj")),
    ):
        holder = layers[0].self_attn if "q_proj" in parts else layers[0].mlp
        for part in parts:
            weight = getattr(holder, part).weight
            assert weight.untyped_storage().data_ptr() == stack.untyped_storage().data_ptr()
