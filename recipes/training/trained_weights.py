"""The weights of an adapter that train, and an update's gradients of them, on the card or on the host."""

import hashlib

import torch
from torch import Tensor, dtype
from torch.nn import Module
from torch.nn.utils import clip_grad_norm_

from recipes.ranks.group import add_up, take_first
from recipes.training.host_optimizer import HostAdamW


class TrainedWeights:
    """What trains of a model, held in the precision that it is to have; `on_host` is the optimizer of the host, if any.

    SFTTrainer rounds the adapter to bf16; updates smaller than half a unit in the last place would be lost. So the
    weights that updates are added to are in fp32: these, or HostAdamW's copy of them.
    """

    def __init__(self, precision: dtype) -> None:
        self.on_host: HostAdamW | None = None
        self.weights: list[Tensor] = []
        self._precision = precision

    def take(self, model: Module) -> None:
        """Take up the weights of a model that train, in the place of those there were."""
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in self.weights:
            weight.data = weight.data.to(self._precision)

    def add_gradients(self) -> None:
        """Add a micro-batch's gradients to the update's: on the host; on the card they have added themselves."""
        if self.on_host is not None:
            self.on_host.add_gradients()

    def forget_gradients(self) -> None:
        """Let go of the gradients that an update has so far."""
        if self.on_host is not None:
            self.on_host.zero_grad()
        for weight in self.weights:
            weight.grad = None

    def has_gradients(self) -> bool:
        """Say whether an update has any gradient so far."""
        if self.on_host is not None:
            return self.on_host.with_gradient().grad is not None
        return any(weight.grad is not None for weight in self.weights)

    @torch.no_grad()
    def add_up_gradients(self) -> None:
        """Put the sum of all processes' gradients in their place, sent as one vector in the weights' dtype.

        A process without gradients adds none, and gets the others'.
        """
        if self.on_host is not None:
            self.on_host.add_up_gradients()
            return
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        summed = torch.cat([gradient.flatten() for gradient in gradients])
        add_up(summed)
        parts = summed.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(each) for part, each in zip(parts, gradients, strict=True)])

    @torch.no_grad()
    def take_first(self) -> None:
        """Take the first process's weights, those of the host's optimizer, too."""
        for weight in [*self.weights, *([self.on_host.on_host] if self.on_host is not None else [])]:
            take_first(weight.data)

    def digest(self) -> str:
        """Return a SHA-256 of the weights as they are added to."""
        weights = [self.on_host.on_host] if self.on_host is not None else self.weights
        content = hashlib.sha256()
        for weight in weights:
            content.update(weight.detach().cpu().contiguous().numpy().data)
        return content.hexdigest()

    def clip_gradients(self, norm: float) -> Tensor:
        """Clip an update's gradients, without a walk through the frozen base, and return their norm before.

        Raises RuntimeError where there is none: it would train nothing, and say nothing.
        """
        if self.on_host is not None:
            found = self.on_host.clip(norm)
        elif all(weight.grad is None for weight in self.weights):
            found = None
        else:
            found = clip_grad_norm_(self.weights, norm)
        if found is None:
            raise RuntimeError("no weight of the adapter got a gradient")
        return found
