"""AdamW on the host updates as torch's own does, and rounds nothing away."""

import copy
from typing import Any

import pytest
import torch

from recipes.training.host_optimizer import HostAdamW

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


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
