"""A gated MLP's product silu(gated) upped and its gradients: on a GPU as one kernel each, which goes over them once."""

import torch
from torch.nn.functional import silu

from recipes.layers.kernels_here import kernels_for


def gated_product(gated: torch.Tensor, upped: torch.Tensor) -> torch.Tensor:
    """Return silu(gated) upped, of their shape and dtype. Both are contiguous."""
    if kernels_for(gated):
        from recipes.layers import gpu_kernels

        return gpu_kernels.gated_product(gated, upped)
    return silu(gated).mul_(upped)


def gated_gradients(
    gradient: torch.Tensor, gated: torch.Tensor, upped: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of `gated` and `upped` from that of gated_product, all of one shape and contiguous.

    Nothing is taken of memory: what is given is written over.
    """
    if kernels_for(gated):
        from recipes.layers import gpu_kernels

        gpu_kernels.gated_gradients(gradient, gated, upped)
        return upped, gradient
    of_gated = upped.mul_(gradient)
    torch.ops.aten.silu_backward.grad_input(of_gated, gated, grad_input=of_gated)
    return of_gated, gradient.mul_(silu(gated, inplace=True))
