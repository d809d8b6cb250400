"""Streamed blocks compute as they would on the card, and each copy comes when it can and no oftener than it must."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from recipes.layers.streamed_blocks import StreamedBlocks, modules_of_streamed_blocks, spread

CPU = torch.device("cpu")


class Block(torch.nn.Module):
    """Two frozen linears and a weight that trains."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(width, 2 * width), torch.nn.Linear(2 * width, width)
        self.requires_grad_(False)
        self.scale = torch.nn.Parameter(torch.randn(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(x))) * self.scale


def blocks_of(count: int) -> list[Block]:
    torch.manual_seed(0)
    return [Block() for _ in range(count)]


def streamed(count: int) -> tuple[list[Block], StreamedBlocks, list[int]]:
    """Return blocks that stream, what streams them, and a list of the copies to come."""
    blocks, copies = blocks_of(count), []
    stream = StreamedBlocks(CPU)
    for number, block in enumerate(blocks):
        stream.add(number, block)
    fill = stream._two_slots._fill

    def noted(number: int) -> None:
        copies.append(number)
        fill(number)

    stream._two_slots._fill = noted
    return blocks, stream, copies


def gradients(blocks: list[Block], run: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
    x = torch.linspace(-1, 1, 24).view(3, 8).requires_grad_()
    y = x
    for block in blocks:
        y = run(block, y)
    (y**2).sum().backward()
    found = [x.grad, *(block.scale.grad for block in blocks)]
    for block in blocks:
        block.scale.grad = None
    return [gradient.clone() for gradient in found if gradient is not None]


def recomputed(block: Block, x: torch.Tensor) -> torch.Tensor:
    """Recompute what is within the block, as transformers' layers do: their hooks stay outside."""
    within = block.forward
    block.forward = lambda x: checkpoint(within, x, use_reentrant=False)  # type: ignore[method-assign]
    try:
        return block(x)
    finally:
        del block.forward


@pytest.mark.parametrize("count", [3, 4, 7])
@pytest.mark.parametrize("run", [Block.__call__, recomputed], ids=["kept", "recomputed"])
def test_gradients_are_the_plain_ones_to_the_bit(count: int, run: Callable[..., torch.Tensor]) -> None:
    expected = gradients(blocks_of(count), Block.__call__)
    blocks, _, _ = streamed(count)
    for _ in range(2):
        found = gradients(blocks, run)
        assert len(found) == count + 1
        assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


def test_each_pass_copies_what_the_slots_do_not_hold() -> None:
    blocks, _, copies = streamed(5)
    gradients(blocks, Block.__call__)
    assert copies == [0, 1, 2, 3, 4, 2, 1, 0], "the last two are still there when the backward pass begins"
    copies.clear()
    gradients(blocks, Block.__call__)
    assert copies == [2, 3, 4, 2, 1, 0], "and the first two when the next forward pass does"


@pytest.mark.parametrize(("count", "again"), [(4, [1, 2, 3, 0]), (5, [0, 1, 2, 3, 4])])
def test_answering_fetches_the_first_block_for_the_next_frame(count: int, again: list[int]) -> None:
    """Where it has another slot than the last one."""
    blocks, _, copies = streamed(count)
    with torch.no_grad():
        for _ in range(2):
            x = torch.ones(1, 8)
            for block in blocks:
                x = block(x)
            first, copies[:] = list(copies), []
    assert first == again


def test_two_blocks_lie_on_the_device_whatever_their_number() -> None:
    blocks, stream, _ = streamed(6)
    held = {linear.weight.data_ptr() for block in blocks for linear in (block.up, block.down)}
    assert len(held) == 2 * 2
    assert set(modules_of_streamed_blocks(torch.nn.ModuleList(blocks))) == {
        module for block in blocks for module in block.modules()
    }
    assert not list(modules_of_streamed_blocks(torch.nn.ModuleList(blocks_of(2))))
    assert len(stream) == 6


def test_block_unlike_the_others_is_refused_and_so_is_one_taken_twice() -> None:
    _, stream, _ = streamed(3)
    with pytest.raises(RuntimeError, match=r"up of block 3 is \(32, 16\), unlike the others'"):
        stream.add(3, Block(16))
    with pytest.raises(RuntimeError, match="up of block 1 is on the host already"):
        stream.add(1, Block())


@pytest.mark.parametrize(("count", "of"), [(28, 28), (14, 28), (9, 28), (3, 4), (0, 5)])
def test_streamed_blocks_are_spread_evenly(count: int, of: int) -> None:
    found: Any = spread(count, of)
    assert len(found) == count and set(found) <= set(range(of))
    apart = {later - earlier for earlier, later in pairwise(found)}
    assert not apart or max(apart) - min(apart) <= 1
