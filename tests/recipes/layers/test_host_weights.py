"""What lives in host memory computes as it would on the card."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.layers import host_weights
from recipes.layers.host_weights import HostEmbedding, HostHead, keep_on_host
from recipes.model import loading
from recipes.model.base import find_base
from recipes.model.forward import rows_of_head

CPU = torch.device("cpu")


@pytest.fixture
def model(small_base: Path) -> Any:
    return loading.load_base(find_base(str(small_base)), dtype=torch.float32, load_in_4bit=False, device=CPU)


def test_embedding_and_head_stay_when_the_model_moves(model: Any) -> None:
    ids = torch.tensor([[5, 9, 300]])
    hidden = torch.randn(1, 3, model.config.text_config.hidden_size)
    rows, logits = model.get_input_embeddings()(ids), model.lm_head(hidden)
    keep_on_host(model, embedding=True, head=True)
    model.to("meta")
    assert model.model.language_model.norm.weight.device == torch.device("meta")
    assert torch.equal(model.get_input_embeddings()(ids), rows)
    torch.testing.assert_close(model.lm_head(hidden), logits)
    with pytest.raises(RuntimeError, match="gives no gradient through its logits"):
        model.lm_head(hidden.requires_grad_())


@pytest.mark.parametrize(("embedding", "head"), [(True, False), (False, True), (True, True)])
def test_tied_head_parts_from_the_embedding_and_stays_parted(tied_base: Path, embedding: bool, head: bool) -> None:
    """On the host both are one table; what leaves the card is not brought back, nor tied again."""
    base = find_base(str(tied_base))
    model = loading.load_base(base, dtype=torch.float32, load_in_4bit=False, device=CPU)
    table = model.lm_head.weight.detach()
    keep_on_host(model, embedding=embedding, head=head)
    model.tie_weights()
    rows = model.lm_head.parts[0] if head else model.lm_head.weight
    assert rows.data_ptr() == model.get_input_embeddings().weight.data_ptr() == table.data_ptr()
    assert not {id(weight) for weight in model.lm_head.parameters()} & {id(model.get_input_embeddings().weight)}
    assert isinstance(model.get_input_embeddings(), HostEmbedding) is embedding
    assert isinstance(model.lm_head, HostHead) is head
    model.to("meta")
    assert model.get_input_embeddings().weight.device.type == ("cpu" if embedding else "meta")
    assert head or model.lm_head.weight.device.type == "meta"


def test_rows_of_a_head_wherever_it_lies(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_weights, "STREAMED_ROWS", 50)
    ids = [3, 49, 50, 767]
    expected = model.lm_head.weight[ids]
    assert torch.equal(rows_of_head(model.lm_head, ids, CPU), expected)
    assert torch.equal(rows_of_head(HostHead(model.lm_head.weight), ids, CPU), expected)
