"""The vision collator: rows to a batch, loss on the answer alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from qwen_vl_utils import process_vision_info
from transformers.processing_utils import ProcessorMixin

from data_prep.images import read_image
from data_prep.labels import LABELS, chat_messages

IGNORED = -100  # what cross entropy leaves out
DECISION_SHARE = 0.5


class VisionCollator:
    """Turn rows of the frames data set into a batch for Qwen2-VL.

    A row holds `image` (`{"bytes": …}` or a PIL image), `prompt` and `response`. Frames are shrunk once, here, to at
    most `max_pixels`, and rows are padded on the left, so that each answer ends at the last position.

    The answer is all that is learned: its tokens and the end of turn. Half of a row's weight lies on the first of
    them, which alone tells SAFE from UNSAFE, and half is spread over the rest; so an answer of more tokens weighs no
    more, and its decision no less. `label_weights` scales whole rows by their label.
    """

    def __init__(
        self, processor: ProcessorMixin, max_pixels: int, label_weights: Mapping[str, float] | None = None
    ) -> None:
        self.processor = processor
        self.max_pixels = max_pixels
        self.label_weights = label_weights or dict.fromkeys(LABELS, 1.0)
        self.answer_ids = {label: self._answer_ids(label) for label in LABELS}
        self.longest_answer = max(len(ids) for ids in self.answer_ids.values())

    def _answer_ids(self, label: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        return tokenizer.encode(label + tokenizer.eos_token, add_special_tokens=False)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Build a training batch: the model's inputs, `labels` and `loss_weights`, both of shape (batch, length)."""
        answers = [row["response"] for row in rows]
        batch = self._encode(rows, [answer + self.processor.tokenizer.eos_token for answer in answers])
        batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
        batch["loss_weights"] = torch.zeros(batch["input_ids"].shape)
        for row, answer in enumerate(answers):
            ids = self.answer_ids[answer]
            batch["labels"][row, -len(ids) :] = batch["input_ids"][row, -len(ids) :]
            batch["loss_weights"][row, -len(ids) :] = self.label_weights[answer] * _token_shares(len(ids))
        return batch

    def prompts(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Build a batch that ends where the answer begins, ready to be scored. `response` isn't read."""
        return self._encode(rows, [""] * len(rows))

    def _encode(self, rows: Sequence[Mapping[str, Any]], endings: Sequence[str]) -> dict[str, torch.Tensor]:
        conversations = [self._messages(row) for row in rows]
        images, _ = process_vision_info(conversations)
        texts = [
            self.processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True) + ending
            for conversation, ending in zip(conversations, endings, strict=True)
        ]
        # The images come resized; a second resize would blur them and break the one pixel limit.
        batch = self.processor(images=images, text=texts, do_resize=False, padding=True, return_tensors="pt")
        return dict(batch)

    def _messages(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        image = row["image"]
        if not isinstance(image, Image.Image):
            image = read_image(image["bytes"], image.get("path"))
        messages = chat_messages(image, row["prompt"])
        messages[0]["content"][0]["max_pixels"] = self.max_pixels
        return messages


def _token_shares(count: int) -> torch.Tensor:
    """Return the shares, of shape (count,) and summing to 1, that an answer's tokens have of its row's weight."""
    if count == 1:
        return torch.ones(1)
    shares = torch.full((count,), (1 - DECISION_SHARE) / (count - 1))
    shares[0] = DECISION_SHARE
    return shares


def balanced_label_weights(responses: Sequence[str]) -> dict[str, float]:
    """Return a weight per label such that both labels have the same total and the mean over `responses` is 1."""
    return {label: len(responses) / (len(LABELS) * responses.count(label)) for label in LABELS}
