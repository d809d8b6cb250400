"""Which blocks of a base are streamed, and how their weights get to the host: as a base is loaded, or afterwards."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import modeling_utils

from recipes.layers.streamed_blocks import StreamedBlocks, linears_of, spread

ONE_BY_ONE = "HF_DEACTIVATE_ASYNC_LOAD"


def stream_blocks(blocks: Sequence[torch.nn.Module], count: int, device: torch.device) -> None:
    """Have `count` of a loaded model's blocks live in host memory and pass through the device."""
    if not count:
        return
    streamed = StreamedBlocks(device)
    for number, place in enumerate(spread(count, len(blocks))):
        streamed.add(number, blocks[place])


class _Blocks:
    """The blocks of one kind of a model that is being loaded, of which `count` are streamed."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.found: list[torch.nn.Module] = []
        self._count, self._streamed = count, StreamedBlocks(device)
        self._owned: dict[torch.nn.Module, tuple[int, str]] = {}

    @property
    def numbered(self) -> Iterable[tuple[int, torch.nn.Module]]:
        """The blocks that are streamed, in order."""
        return enumerate(self.found[place] for place in spread(self._count, len(self.found)))

    def take(self, module: torch.nn.Module, weight: torch.nn.Parameter) -> None:
        """Move the weight of a module to the host, if it is a streamed block's linear. All blocks stand by then."""
        if not self._owned:
            self._owned = {
                linear: (number, path) for number, block in self.numbered for path, linear in linears_of(block)
            }
        if module in self._owned:
            self._streamed.take(*self._owned[module], weight)

    def attach(self) -> None:
        """Have the streamed blocks fetch their weights."""
        for number, block in self.numbered:
            self._streamed.attach(number, block)


@contextmanager
def _nothing_ahead() -> Iterator[None]:
    """Have transformers take no more of the card than for the weight that it is at.

    It would take room for the whole model first, to be faster, and its threads would fill it with weights to come.
    """
    before, warm_up = os.environ.get(ONE_BY_ONE, "0"), modeling_utils.caching_allocator_warmup
    os.environ[ONE_BY_ONE] = "1"
    modeling_utils.caching_allocator_warmup = lambda *_: None
    try:
        yield
    finally:
        os.environ[ONE_BY_ONE] = before
        modeling_utils.caching_allocator_warmup = warm_up


@contextmanager
def streamed_while_loading(counts: Mapping[type[torch.nn.Module], int], device: torch.device) -> Iterator[None]:
    """Have a model that is loaded meanwhile stream so many of its blocks of each kind.

    Each of their weights goes to the host as soon as it has been loaded onto the device, and packed there, so that the
    card holds no more of them than two blocks and one weight at any time.
    """
    kinds = {kind: _Blocks(count, device) for kind, count in counts.items() if count}
    if not kinds:
        yield
        return

    def note(_parent: torch.nn.Module, _name: str, module: torch.nn.Module | None) -> None:
        blocks = kinds.get(type(module))
        if blocks and module is not None and module not in blocks.found:
            blocks.found.append(module)

    def take(module: torch.nn.Module, name: str, weight: torch.nn.Parameter | None) -> None:
        if name == "weight" and weight is not None and not weight.is_meta:
            for blocks in kinds.values():
                blocks.take(module, weight)

    hooks = register_module_module_registration_hook(note), register_module_parameter_registration_hook(take)
    try:
        with _nothing_ahead():
            yield
    finally:
        for hook in hooks:
            hook.remove()
    for blocks in kinds.values():
        blocks.attach()
