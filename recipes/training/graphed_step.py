"""A micro-batch's loss and gradients as one CUDA graph."""

from collections.abc import Hashable, Mapping, Sequence

import torch

from recipes.model.cuda_graphs import GraphedFunction
from recipes.model.forward import Batch
from recipes.model.loss import answer_loss, training_inputs


class GraphedStep:
    """Adds a micro-batch's gradients to those of the weights that train, and returns its share of an update's loss.

    `model` is the base that bears the adapter. A graph adds gradients where it found them when it was captured, so they
    stay in tensors of this one's own, zeroed where an update has let go of them.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.function = GraphedFunction(self.loss_and_gradients)
        self._gradients: list[torch.Tensor] = []

    def __call__(
        self, batch: Batch, rows: int | None, trained: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return answer_loss's of a batch that is a part of an update of so many `rows`: its loss, and log-odds.

        `trained` are the weights that train.
        """
        self._hold_gradients(trained)
        found = self.function(training_inputs(self.model, batch, rows))
        return found[0], found[1:]

    def _hold_gradients(self, trained: Sequence[torch.Tensor]) -> None:
        if not self._gradients:
            self._gradients = [torch.zeros_like(weight) for weight in trained]
        if trained[0].grad is None:
            torch._foreach_zero_(self._gradients)
            for weight, gradient in zip(trained, self._gradients, strict=True):
                weight.grad = gradient

    def loss_and_gradients(self, inputs: Mapping[str, torch.Tensor], _variant: Hashable) -> torch.Tensor:
        """Compute what a graph is made of: the loss of training_inputs', its gradients added to those there are.

        A graph gives one tensor, of shape (1 + batch,): the loss, and the rows' log-odds.
        """
        loss, log_odds = answer_loss(self.model, inputs)
        loss.backward()
        return torch.cat([loss.detach()[None], log_odds])
