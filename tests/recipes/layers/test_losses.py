"""Losses are cross entropy, on the card or against a head that is streamed to it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from recipes.layers import host_weights
from recipes.layers.host_weights import HostHead
from recipes.layers.losses import IGNORED, token_losses
from recipes.model import loading
from recipes.model.base import find_base

CPU = torch.device("cpu")


@pytest.fixture
def model(small_base: Path) -> Any:
    return loading.load_base(find_base(str(small_base)), dtype=torch.float32, load_in_4bit=False, device=CPU)


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
    rivals = torch.tensor([199, 3, 0, 64, 7])
    losses, log_odds = token_losses(head, streamed, labels, rivals)
    expected = cross_entropy(plain @ weight.t(), labels, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-4)
    logits = (plain @ weight.t()).detach()
    counted = [position for position in range(5) if labels[position] != IGNORED]
    told = [logits[position, labels[position]] - logits[position, rivals[position]] for position in counted]
    torch.testing.assert_close(log_odds[counted], torch.stack(told), rtol=1e-5, atol=1e-4)
    assert not log_odds.requires_grad
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
        losses, _ = token_losses(head.to(hidden.device), hidden, labels, labels)
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
    losses, log_odds = token_losses(model.lm_head, hidden, labels, torch.tensor([7, 7, 3]))
    torch.testing.assert_close(losses, expected)
    # The loss of one label less that of the other is what tells them apart.
    other = cross_entropy(model.lm_head(hidden), torch.tensor([7, 7, 3]), reduction="none")
    torch.testing.assert_close(log_odds[[0, 2]], (other - expected)[[0, 2]])
    assert not log_odds.requires_grad
