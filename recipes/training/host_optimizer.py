"""AdamW whose weights, gradients and moments lie in host memory."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from recipes.layers.host_memory import page_locked
from recipes.ranks.group import add_up

ADDED_AT_ONCE = 2**22  # gradients, on the host


class HostAdamW(torch.optim.AdamW):
    """AdamW (arXiv 1711.05101) in fp32 on the host for weights that train on the card in 16 bits.

    The card holds the weights it computes with and a micro-batch's gradients; the fp32 weights that updates are added
    to, the sum of an update's gradients and both moments are here. So neither small updates nor sums are rounded away,
    and an adapter of 40 million weights takes 0.15 GiB of the card instead of 0.38 (fp32, 8-bit moments). Here all
    weights are one vector: gradients come and weights go in one copy each. The optimizer's state is kept with a
    checkpoint, fp32 weights included.
    """

    def __init__(self, weights: Iterable[torch.Tensor], **settings: Any) -> None:
        self.on_card = list(weights)
        self.on_host = torch.cat([weight.detach().flatten() for weight in self.on_card]).to("cpu", torch.float32)
        dtype = self.on_card[0].dtype
        self._bus = page_locked(self.on_host.numel() * dtype.itemsize).view(dtype)
        self._sum = torch.empty_like(self.on_host)
        self._part = torch.empty(ADDED_AT_ONCE)
        self._arriving: torch.cuda.Event | None = None
        self._on_bus = False
        super().__init__([self.on_host], fused=True, **settings)

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the card's gradients to the host's in fp32, and let them go; where none has one, nothing happens.

        A weight without one is taken to have one of zeros. The card isn't waited for: what comes over the bus is added
        by the next call, while the card computes.
        """
        if all(weight.grad is None for weight in self.on_card):
            return
        self._add_from_bus()
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self.on_card]
        self._bus.copy_(torch.cat([gradient.flatten() for gradient in gradients]), non_blocking=True)
        self._on_bus = True
        if self.on_card[0].is_cuda:
            self._arriving = torch.cuda.Event()
            self._arriving.record()
        for weight in self.on_card:
            weight.grad = None

    def _add_from_bus(self) -> None:
        if not self._on_bus:
            return
        if self._arriving is not None:
            self._arriving.synchronize()
        if self.on_host.grad is None:
            self.on_host.grad = self._sum.copy_(self._bus)
        else:  # in parts, by way of a small copy: torch takes four times as long to add numbers of two precisions
            for added, part in zip(self._sum.split(ADDED_AT_ONCE), self._bus.split(ADDED_AT_ONCE), strict=True):
                added += self._part[: len(part)].copy_(part)
        self._on_bus = False

    def with_gradient(self) -> torch.Tensor:
        """Return the host's weights, whose `grad` is the sum of all gradients added since the last step, or None."""
        self.add_gradients()
        self._add_from_bus()
        return self.on_host

    @torch.no_grad()
    def add_up_gradients(self) -> None:
        """Put the sum over all processes in the place of this one's sum of gradients.

        Each process's fp32 sum is rounded once to the card's dtype, in which it is sent and added up: half the bytes at
        16 bits, for an error that benchmarks/README.md states.
        """
        gradient = self.with_gradient().grad
        gradient = self._sum.zero_() if gradient is None else gradient
        self._bus.copy_(gradient)
        sent = self._bus.to(self.on_card[0].device)
        add_up(sent)
        self.on_host.grad = gradient.copy_(self._bus.copy_(sent))

    @torch.no_grad()
    def clip(self, most: float) -> torch.Tensor | None:
        """Scale the sum of the gradients to a norm of `most` where it is larger; return the norm before.

        Returns None where there are no gradients. Norms of single weights come first: in one go fp32 adds the squares
        of 40 million up to 0.6 % less.
        """
        gradient = self.with_gradient().grad
        if gradient is None:
            return None
        norm = get_total_norm(gradient.split([weight.numel() for weight in self.on_card]))
        clip_grads_with_norm_(self.on_host, most, norm)
        return norm

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update the host's weights from the sum of the gradients, and the card's weights from the host's."""
        self.with_gradient()
        super().step()
        self.on_host.grad = None
        self._bus.copy_(self.on_host)
        parts = self._bus.to(self.on_card[0].device).split([weight.numel() for weight in self.on_card])
        torch._foreach_copy_(self.on_card, [part.view_as(each) for part, each in zip(parts, self.on_card, strict=True)])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let the gradients go, the card's too."""
        self._on_bus = False
        super().zero_grad(set_to_none)
        for weight in self.on_card:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return AdamW's state with the fp32 weights beside it."""
        return {**super().state_dict(), "weights": self.on_host.clone()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state that state_dict returned."""
        super().load_state_dict({name: part for name, part in state_dict.items() if name != "weights"})
        self.on_host.copy_(state_dict["weights"])
