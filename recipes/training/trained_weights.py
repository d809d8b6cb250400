"""The weights of an adapter that train, and an update's gradients of them, on the card or on the host."""

from torch import Tensor, dtype
from torch.nn import Module
from torch.nn.utils import clip_grad_norm_

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
