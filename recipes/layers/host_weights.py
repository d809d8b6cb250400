"""What lives in host memory while a GPU computes: the frozen token embedding, the frozen LM head."""

from collections.abc import Callable, Iterator

import torch
from transformers import Qwen2VLForConditionalGeneration

from recipes.layers import host_memory
from recipes.layers.two_slots import TwoSlots

STREAMED_ROWS = 4608  # of the LM head on the card at once, twice: 31.5 MiB each for the 7B, just below a power of two


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
        self.rows_a_part = len(self.parts[0])  # of all but the last
        self.locked = weight.is_pinned()

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the weights' rows of `ids`, of shape (rows,) and on the CPU: (rows, hidden)."""
        return torch.stack(
            [self.parts[number // self.rows_a_part][number % self.rows_a_part] for number in ids.tolist()]
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of `hidden`, of shape (…, hidden), on its device.

        Raises RuntimeError where a gradient is wanted: the weights are gone from the card by then; see token_losses.
        """
        if torch.is_grad_enabled() and hidden.requires_grad:
            raise RuntimeError("a head in host memory gives no gradient through its logits; use token_losses")
        return torch.cat([hidden @ rows.t() for rows in self.stream(hidden.device)], dim=-1)

    def stream(self, device: torch.device) -> Iterator[torch.Tensor]:
        """Yield the weights' rows in order, `rows_a_part` at a time, on `device`.

        What is yielded is overwritten two parts later. The next part is copied while the last one is being used.
        """
        if device.type == "cpu":
            yield from self.parts
            return
        if not self.locked:
            self.parts, self.locked = [host_memory.lock(part) for part in self.parts], True
        parts = self.parts
        buffers = [torch.empty_like(parts[0], device=device) for _ in range(2)]

        def room_of(number: int) -> torch.Tensor:
            return buffers[number % 2][: len(parts[number])]

        slots = TwoSlots(device, lambda number: host_memory.send([parts[number]], room_of(number)))
        for number in range(len(parts)):
            slots.use(number)
            if number + 1 < len(parts):
                slots.prefetch(number + 1)
            yield room_of(number)


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
            table = rows = host_memory.lock(table)  # as the head's parts must be; else they would be a second copy
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
