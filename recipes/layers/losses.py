"""One loss a token, of a head on the card or of one whose rows are streamed to it."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from recipes.layers.host_weights import HostHead

IGNORED = -100  # what cross entropy leaves out


class _StreamedLosses(torch.autograd.Function):
    """Cross entropy against a head that is seen once, part by part.

    The gradient of a position's loss is the rows' mean under the softmax, less the target's row. Sums are kept relative
    to the largest logit so far and rescaled when a larger one comes: the online softmax of arXiv 1805.02867. Logits and
    sums are never rounded to 16 bits, as where a target is nearly certain its row and the mean almost cancel; and the
    target's logit is one of those summed over, so that no loss is negative.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, labels: torch.Tensor, head: HostHead) -> torch.Tensor:
        counted = labels != IGNORED
        ids = labels.where(counted, 0)
        # All that comes from the host comes first: later it would wait for the card, and the card then for the host.
        counted, columns, targets = (
            part.to(hidden.device, non_blocking=True) for part in (counted, ids[:, None], head.rows(ids))
        )
        parts = set((ids // head.rows_a_part).tolist())
        largest = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
        total, of_target = torch.zeros_like(largest), torch.zeros_like(largest)
        weighted = torch.zeros_like(hidden, dtype=torch.float32)
        for number, rows in enumerate(head.stream(hidden.device)):
            logits = _fp32_product(hidden, rows.t())
            if number in parts:
                found = logits.gather(1, (columns - number * head.rows_a_part).clamp(0, len(rows) - 1))
                of_target = torch.where(columns // head.rows_a_part == number, found, of_target)
            larger = torch.maximum(largest, logits.amax(1, keepdim=True))
            shares, rescaling = (logits - larger).exp(), (largest - larger).exp()
            total = total * rescaling + shares.sum(1, keepdim=True)
            weighted = weighted * rescaling + _fp32_product(shares.to(rows.dtype), rows)
            largest = larger
        ctx.save_for_backward((weighted / total - targets.float()) * counted[:, None])
        ctx.dtype = hidden.dtype
        # The total counts the largest as exactly 1, so neither of the two terms is below 0.
        return (total.log() + (largest - of_target)).squeeze(1) * counted

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (of_hidden,) = ctx.saved_tensors
        return (gradient[:, None] * of_hidden).to(ctx.dtype), None, None


def _fp32_product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a matrix product in fp32, as a card sums it anyway; torch would round it to the factors' 16 bits."""
    if one.is_cuda:
        return torch.mm(one, other, out_dtype=torch.float32)
    return one.float() @ other.float()


def token_losses(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return each position's negative log-likelihood, 0 where the label is IGNORED: (positions,), in fp32.

    `hidden` has shape (positions, hidden) and lies on the model's device; `labels`, of shape (positions,), on the CPU.
    """
    if isinstance(head, HostHead):
        return _StreamedLosses.apply(hidden, labels, head)
    labels = labels.to(hidden.device, non_blocking=True)
    return cross_entropy(head(hidden).float(), labels, ignore_index=IGNORED, reduction="none")
