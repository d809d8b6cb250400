"""What can live in host memory while a GPU trains: the token embedding, the LM head, the optimizer and its state."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import Qwen2VLForConditionalGeneration

from recipes.batches.collator import IGNORED

STREAMED_ROWS = 4608  # of the LM head on the card at once, twice: 31.5 MiB each for the 7B, just below a power of two
ADDED_AT_ONCE = 2**22  # gradients, on the host


class HostEmbedding(torch.nn.Embedding):
    """A frozen token embedding that stays in host memory wherever its model is moved.

    Looking a batch up there and sending its rows over the bus costs little; the 7B's table takes 1 GiB of a card.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "HostEmbedding":
        return self  # what moves or casts a module's weights; accelerate does so with the whole model


class HostHead(torch.nn.Module):
    """A frozen LM head that stays in host memory wherever its model is moved.

    Its weights, 1 GiB for the 7B, pass through the card a part at a time, once for a loss and its gradient together.
    They are held in parts, because torch page-locks memory in powers of two: the whole would take 2 GiB. Weights that
    are page-locked already stay as they are.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        weight = weight.detach().cpu()
        self.parts = list(weight.split(STREAMED_ROWS))
        self.pinned = weight.is_pinned()

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the weights' rows of `ids`, of shape (rows,) and on the CPU: (rows, hidden)."""
        return torch.stack([self.parts[number // STREAMED_ROWS][number % STREAMED_ROWS] for number in ids.tolist()])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of `hidden`, of shape (…, hidden), on its device.

        Raises RuntimeError where a gradient is wanted: the weights are gone from the card by then; see token_losses.
        """
        if torch.is_grad_enabled() and hidden.requires_grad:
            raise RuntimeError("a head in host memory gives no gradient through its logits; use token_losses")
        return torch.cat([hidden @ rows.t() for rows in self.stream(hidden.device)], dim=-1)

    def stream(self, device: torch.device) -> Iterator[torch.Tensor]:
        """Yield the weights' rows in order, up to STREAMED_ROWS at a time, on `device`.

        What is yielded is overwritten two parts later. The next part is copied while the last one is being used.
        """
        if device.type == "cpu":
            yield from self.parts
            return
        if not self.pinned:
            self.parts, self.pinned = [part.pin_memory() for part in self.parts], True
        parts = self.parts
        computing, copying = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        buffers = [torch.empty_like(parts[0], device=device) for _ in range(2)]
        copied, used = ([torch.cuda.Event() for _ in range(2)] for _ in range(2))
        copying.wait_stream(computing)

        def copy(number: int) -> None:
            slot = number % 2
            with torch.cuda.stream(copying):
                if number >= 2:
                    copying.wait_event(used[slot])
                buffers[slot][: len(parts[number])].copy_(parts[number], non_blocking=True)
                copied[slot].record(copying)

        copy(0)
        for number, part in enumerate(parts):
            if number + 1 < len(parts):
                copy(number + 1)
            computing.wait_event(copied[number % 2])
            yield buffers[number % 2][: len(part)]
            used[number % 2].record(computing)


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
        parts = set((ids // STREAMED_ROWS).tolist())
        largest = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
        total, of_target = torch.zeros_like(largest), torch.zeros_like(largest)
        weighted = torch.zeros_like(hidden, dtype=torch.float32)
        for number, rows in enumerate(head.stream(hidden.device)):
            logits = _fp32_product(hidden, rows.t())
            if number in parts:
                found = logits.gather(1, (columns - number * STREAMED_ROWS).clamp(0, len(rows) - 1))
                of_target = torch.where(columns // STREAMED_ROWS == number, found, of_target)
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


def rows_of_head(head: torch.nn.Module, ids: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the LM head's rows of some tokens on `device`, of shape (tokens, hidden), wherever the head lies."""
    if isinstance(head, HostHead):
        return head.rows(torch.tensor(ids)).to(device)
    return head.weight[list(ids)]


def token_losses(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return each position's negative log-likelihood, 0 where the label is IGNORED: (positions,), in fp32.

    `hidden` has shape (positions, hidden) and lies on the model's device; `labels`, of shape (positions,), on the CPU.
    """
    if isinstance(head, HostHead):
        return _StreamedLosses.apply(hidden, labels, head)
    labels = labels.to(hidden.device, non_blocking=True)
    return cross_entropy(head(hidden).float(), labels, ignore_index=IGNORED, reduction="none")


def keep_on_host(model: Qwen2VLForConditionalGeneration, *, embedding: bool, head: bool) -> None:
    """Keep the frozen token embedding, the LM head or both in host memory for good; neither: leave all as it is.

    A head that shares the embedding's weights parts from it: the host holds them once, and so does the card where one
    of the two is to stay there. `model` may come with both on the host.
    """
    if not (embedding or head):
        return
    device = model.model.language_model.norm.weight.device
    table, rows = model.get_input_embeddings().weight.detach(), model.lm_head.weight.detach()
    if model.config.tie_word_embeddings and model.all_tied_weights_keys:
        table = rows = table.cpu()
        if embedding and head and device.type == "cuda":
            table = rows = table.pin_memory()  # as the head's parts must be; else they would be a second copy
    model.config.tie_word_embeddings = False  # or transformers' tie_weights would undo what follows
    model.all_tied_weights_keys = {}
    if embedding:
        model.set_input_embeddings(HostEmbedding.from_pretrained(table.cpu()))
    else:
        model.get_input_embeddings().weight = torch.nn.Parameter(table.to(device), requires_grad=False)
    if head:
        model.lm_head = HostHead(rows)
    else:
        model.lm_head.weight = torch.nn.Parameter(rows.to(device), requires_grad=False)


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
        self._bus = torch.empty(self.on_host.shape, dtype=self.on_card[0].dtype, pin_memory=torch.cuda.is_available())
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
        for weight, part in zip(self.on_card, parts, strict=True):
            weight.copy_(part.view_as(weight))

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
