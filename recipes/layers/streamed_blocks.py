"""Blocks of a model whose frozen weights stay in host memory and pass through the card, two blocks at a time."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from recipes.layers import host_memory
from recipes.layers.two_slots import TwoSlots


def spread(count: int, of: int) -> list[int]:
    """Return `count` numbers below `of`, as evenly apart as can be: what stays on the card gives the others time."""
    return [number for number in range(of) if (number + 1) * count // of > number * count // of]


def modules_of_streamed_blocks(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield every module of a model whose weights are another's between its own passes, or that holds such a one."""
    for block in model.modules():
        if isinstance(getattr(block, "streamed_with", None), StreamedBlocks):
            yield from block.modules()


def linears_of(block: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    """Yield the path and the module of each linear whose weight is streamed with a block's."""
    yield from ((path, module) for path, module in block.named_modules() if isinstance(module, torch.nn.Linear))


class StreamedBlocks:
    """Blocks of one kind and size in the order in which they are computed, their linears' frozen weights on the host.

    A block's linears keep their modules and parameters. Those of block n are views of slot n % 2 on the card for good,
    so whatever autograd keeps of them is right whenever that slot holds block n: from its forward pass to the next
    block but one's, and again from the start of its backward pass, for which hooks see. A block's forward pass has the
    next one's weights copied meanwhile, its backward pass those of the one before.

    A weight in 4 bits goes with its absmax. Biases, norms, tables of the quantisation and adapters stay on the card.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory = host_memory.HostMemory()
        self._on_host: dict[int, dict[str, list[torch.Tensor]]] = defaultdict(dict)
        self._slots: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
        self._two_slots = TwoSlots(device, self._fill)

    def __len__(self) -> int:
        return len(self._on_host)

    def add(self, number: int, block: torch.nn.Module) -> None:
        """Take up block `number`: its weights go to the host, and its passes fetch them from there."""
        for path, linear in linears_of(block):
            self.take(number, path, linear.weight)
        self.attach(number, block)

    def take(self, number: int, path: str, weight: torch.nn.Parameter) -> None:
        """Move the frozen weight of one of block `number`'s linears to the host, wherever it is."""
        weight.requires_grad_(False)
        weight.data = self._moved(number, path, weight.data)
        state = getattr(weight, "quant_state", None)
        if state is not None:
            state.absmax = self._moved(number, f"{path}.absmax", state.absmax)

    def _moved(self, number: int, name: str, tensor: torch.Tensor) -> torch.Tensor:
        slot = self._slots[number % 2]
        if name in self._on_host[number]:
            raise RuntimeError(f"{name} of block {number} is on the host already")
        if name not in slot:
            slot[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
        elif (slot[name].shape, slot[name].dtype) != (tensor.shape, tensor.dtype):
            raise RuntimeError(f"{name} of block {number} is {tuple(tensor.shape)}, unlike the others'")
        self._on_host[number][name] = self._memory.store(tensor)
        return slot[name]

    def attach(self, number: int, block: torch.nn.Module) -> None:
        """Have block `number`, whose weights have been taken, fetch them for its forward and its backward pass."""
        block.streamed_with = self
        block.register_forward_pre_hook(partial(self._before_forward, number))
        block.register_forward_hook(partial(self._after_forward, number))

    def _before_forward(self, number: int, *_: Any) -> None:
        self._two_slots.use(number)
        last = len(self) - 1
        if number < last:
            self._two_slots.prefetch(number + 1)
        elif last % 2 and not torch.is_grad_enabled():  # with gradients, the last two are needed once more
            self._two_slots.prefetch(0)

    def _after_forward(self, number: int, _block: Any, _inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(partial(self._before_backward, number))

    def _before_backward(self, number: int, _gradient: torch.Tensor) -> None:
        self._two_slots.use(number)
        if number:
            self._two_slots.prefetch(number - 1)

    def _fill(self, number: int) -> None:
        slot = self._slots[number % 2]
        for name, parts in self._on_host[number].items():
            host_memory.send(parts, slot[name].view(-1).view(torch.uint8))
