"""What lives in host memory computes as it would on the card."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from recipes.layers import host_weights
from recipes.layers.host_weights import HostEmbedding, HostHead, keep_on_host
from recipes.layers.losses import IGNORED, token_losses
from recipes.model import loading
from recipes.model.base import find_base
from recipes.model.forward import rows_of_head
from recipes.training.host_optimizer import HostAdamW

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


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0], ids=["flat", "plain", "logits in the thousands"])
@pytest.mark.parametrize("rows_at_once", [7, 64, 4608])
def test_losses_of_a_streamed_head_are_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int, scale: float
) -> None:
    monkeypatch.setattr(host_weights, "STREAMED_ROWS", rows_at_once)
    torch.manual_seed(0)
    weight = torch.randn(200, 16)
    head = HostHead(weight)
    labels = torch.tensor([3, IGNORED, 199, 0, 64])
    weights = torch.tensor([0.5, 7.0, 0.25, 1.0, 2.0])
    streamed, plain = ((torch.randn(5, 16, generator=torch.Generator().manual_seed(1)) * scale) for _ in range(2))
    streamed.requires_grad_()
    plain.requires_grad_()
    losses = token_losses(head, streamed, labels)
    expected = cross_entropy(plain @ weight.t(), labels, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-4)
    (losses @ weights).backward()
    (expected @ weights).backward()
    torch.testing.assert_close(streamed.grad, plain.grad, rtol=1e-4, atol=1e-5)
    assert not streamed.grad[1].any()


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pull", [0.0, 9.0, 20.0], ids=["unsure", "half sure", "sure"])
def test_a_streamed_head_is_no_further_from_exact_than_one_on_the_card(pull: float, device: str) -> None:
    """In bf16, against fp64; an error's size is a root mean square over positions, of gradients relative to them."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(20000, 512, generator=generator) * 0.05).bfloat16()
    labels = torch.randint(0, len(weight), (24,), generator=generator)
    targets = weight[labels].float()
    pulled = pull * targets / targets.square().sum(1, keepdim=True)
    hidden = (torch.randn(24, 512, generator=generator) + pulled).bfloat16()
    on_card = torch.nn.Linear(512, len(weight), bias=False, dtype=torch.bfloat16)
    on_card.weight = torch.nn.Parameter(weight, requires_grad=False)

    def found(head: torch.nn.Module, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = hidden.detach().clone().requires_grad_()
        losses = token_losses(head.to(hidden.device), hidden, labels)
        losses.sum().backward()
        return losses.detach().cpu().double(), hidden.grad.cpu().double()

    exact = hidden.double().requires_grad_()
    losses = cross_entropy(exact @ weight.double().t(), labels, reduction="none")
    losses.sum().backward()

    def errors(of: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
        relative = (of[1] - exact.grad).norm(dim=1) / exact.grad.norm(dim=1)
        return float((of[0] - losses.detach()).square().mean().sqrt()), float(relative.square().mean().sqrt())

    streamed = found(HostHead(weight), hidden.to(device))
    assert (streamed[0] >= 0).all()
    loss_error, gradient_error = errors(streamed)
    most = errors(found(on_card, hidden.to(device)))
    assert loss_error <= min(most[0], 1e-5)
    assert gradient_error <= 1.05 * most[1]
    assert gradient_error <= 1e-2


def test_losses_of_a_head_on_the_card_are_cross_entropy(model: Any) -> None:
    hidden = torch.randn(3, model.config.text_config.hidden_size)
    labels = torch.tensor([3, IGNORED, 7])
    expected = cross_entropy(model.lm_head(hidden), labels, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(token_losses(model.lm_head, hidden, labels), expected)


def test_rows_of_a_head_wherever_it_lies(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_weights, "STREAMED_ROWS", 50)
    ids = [3, 49, 50, 767]
    expected = model.lm_head.weight[ids]
    assert torch.equal(rows_of_head(model.lm_head, ids, CPU), expected)
    assert torch.equal(rows_of_head(HostHead(model.lm_head.weight), ids, CPU), expected)


def weights_after(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, steps: int) -> torch.Tensor:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimizer.step()
        optimizer.zero_grad()
    assert weight.grad is None
    return weight.detach().clone()


def test_host_adamw_is_adamw() -> None:
    settings: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8}
    one, other = (torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2))
    on_host = HostAdamW([one], weight_decay=0.1, **settings)
    plain = torch.optim.AdamW([{"params": [other], "weight_decay": 0.1}], **settings)
    torch.testing.assert_close(weights_after(on_host, one, 5), weights_after(plain, other, 5))


def test_several_weights_of_a_host_optimizer_are_updated_as_one_vector() -> None:
    shapes, settings = [(3, 4), (5,), (2, 2)], {"lr": 0.01, "weight_decay": 0.1}
    ours, plain = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    optimizers = HostAdamW(ours, **settings), torch.optim.AdamW(plain, **settings)
    for step in range(3):
        for weights, optimizer in zip((ours, plain), optimizers, strict=True):
            for number, weight in enumerate(weights):
                weight.grad = torch.full(weight.shape, float(number + step - 1))
            optimizer.step()
            optimizer.zero_grad()
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, other)
        assert mine.grad is None


def test_updates_too_small_for_16_bits_add_up() -> None:
    card = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = HostAdamW([card], lr=1e-4, weight_decay=0.0)
    for _ in range(100):
        card.grad = torch.ones_like(card)
        optimizer.step()
    assert card.dtype == torch.bfloat16
    torch.testing.assert_close(card.detach().float(), torch.full((4,), 0.99), atol=4e-3, rtol=0)
    assert card[0] < 1, "one step of 1e-4 is less than bf16 can tell from 1"


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_16_bits_add_up_in_fp32(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr("recipes.training.host_optimizer.ADDED_AT_ONCE", 7)
    cards = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16, device=device)) for shape in ((3, 4), (5,))]
    optimizer = HostAdamW(cards, lr=1.0, weight_decay=0.0)
    assert optimizer.with_gradient().grad is None
    for _ in range(2):  # an update leaves nothing for the next
        expected = torch.zeros(17, dtype=torch.float64)
        for step in range(16):
            drawn = torch.randn(17, generator=torch.Generator().manual_seed(step)).bfloat16()
            cards[0].grad = drawn[:12].view(3, 4).to(device)
            cards[1].grad = drawn[12:].to(device) if step else None
            expected += drawn.double() if step else torch.cat([drawn[:12], torch.zeros(5)]).double()
            optimizer.add_gradients()
            assert cards[0].grad is None
        torch.testing.assert_close(optimizer.with_gradient().grad.double(), expected, rtol=1e-6, atol=1e-6)
        optimizer.step()
        assert optimizer.with_gradient().grad is None


def test_gradients_are_clipped_to_an_exact_norm() -> None:
    """In one go fp32 adds the squares of ten million up to less."""
    cards = [torch.nn.Parameter(torch.zeros(250_000, dtype=torch.bfloat16)) for _ in range(40)]
    optimizer = HostAdamW(cards, lr=1.0)
    assert optimizer.clip(1.0) is None
    generator = torch.Generator().manual_seed(0)
    for card in cards:
        card.grad = torch.randn(card.shape, generator=generator).bfloat16()
    expected = float(torch.stack([card.grad.double().norm() for card in cards]).norm())
    for most, left in ((2 * expected, expected), (0.5 * expected, 0.5 * expected)):
        assert float(optimizer.clip(most)) == pytest.approx(expected, rel=1e-5)
        assert float(optimizer.with_gradient().grad.double().norm()) == pytest.approx(left, rel=1e-5)


def test_scheduler_steers_the_host_s_weights() -> None:
    card = torch.nn.Parameter(torch.zeros(2))
    optimizer = HostAdamW([card], lr=1.0, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    card.grad = torch.ones(2)
    optimizer.step()
    scheduler.step()
    assert not card.any()


def test_optimizer_s_state_holds_what_16_bits_do_not() -> None:
    def fresh() -> tuple[torch.nn.Parameter, HostAdamW]:
        card = torch.nn.Parameter(torch.linspace(-1, 1, 8).bfloat16())
        return card, HostAdamW([card], lr=1e-3, weight_decay=0.01)

    card, optimizer = fresh()
    weights_after(optimizer, card, 4)
    state = copy.deepcopy(optimizer.state_dict())
    resumed_card, resumed = fresh()
    resumed_card.data.copy_(card.data)
    resumed.load_state_dict(state)
    assert torch.equal(weights_after(resumed, resumed_card, 3), weights_after(optimizer, card, 3))
    assert torch.equal(resumed.state_dict()["weights"], optimizer.state_dict()["weights"])
