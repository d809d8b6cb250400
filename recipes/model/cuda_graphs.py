"""Functions of tensors on the card as CUDA graphs: the host starts thousands of kernels with one call.

At one frame a decoder layer's kernels end sooner than a CPU can start them. A graph holds them all, for inputs of one
shape; it is what https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs describes.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch

Inputs = Mapping[str, torch.Tensor]

ORDINARY_CALLS = 2  # of each kind of inputs before its graph: they compile what is to be compiled and choose kernels
MOST_GRAPHS = 8  # a camera's frames are of one size; further sizes are computed as ever


class GraphedFunction:
    """A function that is replayed as a graph for every kind of inputs that keeps coming.

    `function` takes tensors by name, all on one card, and the call's `variant`, and returns a tensor. It may not wait
    for the card. A replay reads and writes memory where the capture found it, so all that the function works with is
    either an input, of which the graph keeps a copy, or owned by whoever owns the function for as long as it lives: a
    cache that may let go of something is neither. What it adds to tensors of its own, like gradients, is added again at
    every replay. Kinds of inputs differ in names, shapes or `variant`; all graphs share one pool of memory.
    """

    def __init__(self, function: Callable[[Inputs, Any], torch.Tensor]) -> None:
        self.function = function
        self._calls = Counter[Hashable]()
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, dict[str, torch.Tensor], torch.Tensor]] = {}
        self._pool: tuple[int, int] | None = None

    def __call__(self, inputs: Inputs, variant: Hashable = None) -> torch.Tensor:
        """Return what the function returns; `variant` names whatever else its result depends on.

        No gradient goes back to the inputs. One that did would end in ordinary calls' stream, which a capture refuses.
        """
        inputs = {name: tensor.detach() for name, tensor in inputs.items()}
        kind = (variant, *((name, tensor.shape, tensor.dtype) for name, tensor in sorted(inputs.items())))
        if kind not in self._captured:
            self._calls[kind] += 1
            if self._calls[kind] <= ORDINARY_CALLS or len(self._captured) == MOST_GRAPHS:
                return self.function(inputs, variant)
            self._captured[kind] = self._capture(inputs, variant)
        graph, kept, output = self._captured[kind]
        for name, tensor in inputs.items():
            kept[name].copy_(tensor)
        graph.replay()
        return output.clone()

    def _capture(
        self, inputs: Inputs, variant: Hashable
    ) -> tuple[torch.cuda.CUDAGraph, dict[str, torch.Tensor], torch.Tensor]:
        kept = {name: tensor.clone() for name, tensor in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        # Other threads go on: the data loader's pins memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self.function(kept, variant)
        self._pool = graph.pool()
        return graph, kept, output
