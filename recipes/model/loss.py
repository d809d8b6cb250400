"""The loss of a batch, and each row's log-odds: from the head at the answers' positions alone."""

from collections.abc import Mapping

import torch

from recipes.layers.host_weights import HostHead
from recipes.layers.losses import token_losses
from recipes.model.forward import Batch, language_inputs, last_hidden


def training_inputs(model: torch.nn.Module, batch: Batch, rows: int | None = None) -> dict[str, torch.Tensor]:
    """Return what answer_loss reads of VisionCollator's batch: what language_inputs gives, targets, rivals and `rows`.

    Targets lie where the LM head does. `rows`, a scalar beside the hidden states, is how many rows the loss is a mean
    over: those of a whole update, the batch's own by default. As a tensor it may differ at every replay of a graph.
    """
    inputs = language_inputs(model, batch)
    on = inputs["inputs_embeds"].device
    head = "cpu" if isinstance(model.lm_head, HostHead) else on
    targets = {name: batch[name].to(head, non_blocking=True) for name in ("labels", "rivals", "loss_weights")}
    return inputs | targets | {"rows": torch.full((), float(rows or len(batch["labels"])), device=on)}


def answer_loss(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss, a scalar, and the log-odds of each row's label against the other one, of shape (batch,).

    The loss is the weighted negative log-likelihood of the answers' tokens: their sum divided by `rows`. The log-odds,
    which carry no gradient, are the difference of two of its logits, at the position that tells the labels apart.
    `inputs` are training_inputs', whose rows end with their answers, and `model` the base that bears the adapter. The
    LM head runs on the answers' positions alone: for the 7B, logits of every position would take 1.5 MB a token.
    """
    labels, weights = inputs["labels"], inputs["loss_weights"]
    hidden = last_hidden(model, inputs, labels.shape[1] + 1)[:, :-1]
    losses, log_odds = token_losses(
        model.lm_head, hidden.flatten(0, 1), labels.flatten(), inputs["rivals"].repeat_interleave(labels.shape[1])
    )
    loss = losses @ weights.flatten().to(losses.device, non_blocking=True) / inputs["rows"]
    return loss, log_odds.view(labels.shape)[:, 0]
