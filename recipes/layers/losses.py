"""One loss a token, and log-odds, of a head on the card or of one whose rows are streamed to it."""

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
    def forward(
        ctx: Any, hidden: torch.Tensor, labels: torch.Tensor, rivals: torch.Tensor, head: HostHead
    ) -> tuple[torch.Tensor, torch.Tensor]:
        counted = labels != IGNORED
        ids = labels.where(counted, 0)
        pairs = torch.stack([ids, rivals], dim=1)
        # All that comes from the host comes first: later it would wait for the card, and the card then for the host.
        counted, columns, targets = (
            part.to(hidden.device, non_blocking=True) for part in (counted, pairs, head.rows(ids))
        )
        parts = set((pairs // head.rows_a_part).flatten().tolist())
        largest = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
        total, of_pairs = torch.zeros_like(largest), torch.zeros(len(hidden), 2, device=hidden.device)
        weighted = torch.zeros_like(hidden, dtype=torch.float32)
        for number, rows in enumerate(head.stream(hidden.device)):
            logits = _fp32_product(hidden, rows.t())
            if number in parts:
                found = logits.gather(1, (columns - number * head.rows_a_part).clamp(0, len(rows) - 1))
                of_pairs = torch.where(columns // head.rows_a_part == number, found, of_pairs)
            larger = torch.maximum(largest, logits.amax(1, keepdim=True))
            shares, rescaling = (logits - larger).exp(), (largest - larger).exp()
            total = total * rescaling + shares.sum(1, keepdim=True)
            weighted = weighted * rescaling + _fp32_product(shares.to(rows.dtype), rows)
            largest = larger
        ctx.save_for_backward((weighted / total - targets.float()) * counted[:, None])
        ctx.dtype = hidden.dtype
        of_target, of_rival = of_pairs.split(1, dim=1)
        log_odds = (of_target - of_rival).squeeze(1)
        ctx.mark_non_differentiable(log_odds)
        # The total counts the largest as exactly 1, so neither of the two terms is below 0.
        return (total.log() + (largest - of_target)).squeeze(1) * counted, log_odds

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _of_log_odds: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (of_hidden,) = ctx.saved_tensors
        return (gradient[:, None] * of_hidden).to(ctx.dtype), None, None, None


def _fp32_product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a matrix product in fp32, as a card sums it anyway; torch would round it to the factors' 16 bits."""
    if one.is_cuda:
        return torch.mm(one, other, out_dtype=torch.float32)
    return one.float() @ other.float()


def token_losses(
    head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor, rivals: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each position's negative log-likelihood, and the log-odds of its label against its rival, both in fp32.

    Both have shape (positions,), and both come from the same logits. The first is 0 where the label is IGNORED; the
    second carries no gradient, and says nothing there. `hidden` has shape (positions, hidden) and lies on the model's
    device; `labels` and `rivals`, token ids of shape (positions,), lie where the head does.
    """
    if isinstance(head, HostHead):
        losses, log_odds = _StreamedLosses.apply(hidden, labels, rivals, head)
        return losses, log_odds
    labels, rivals = (ids.to(hidden.device, non_blocking=True) for ids in (labels, rivals))
    logits = head(hidden).float()
    of_label, of_rival = (logits.detach().gather(1, ids.clamp(min=0)[:, None]).squeeze(1) for ids in (labels, rivals))
    return cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none"), of_label - of_rival
