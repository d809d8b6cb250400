"""Stock `generate` held to the two answers: what scoring one position stands in for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def question(processor: Any, prompt: str) -> str:
    """Return the conversation about one image up to where the answer begins, by the processor's own template."""
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    text: str = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text


@torch.no_grad()
def generate_held(
    model: Any, inputs: Mapping[str, torch.Tensor], answers: Mapping[str, Sequence[int]], *, end_id: int
) -> list[str]:
    """Return which of the answers `generate` gives for each row of `inputs` when it may give no other.

    `inputs` are a stock processor's, padded on the left, and `answers` the token ids by label, each with the end of
    turn. What follows an ended answer is `end_id`.
    """
    begin = inputs["input_ids"].shape[1]

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        given = ids[begin:].tolist()
        going_on = [list(each) for each in answers.values() if list(each[: len(given)]) == given]
        return [each[len(given)] for each in going_on if len(each) > len(given)] or [end_id]

    longest = max(len(each) for each in answers.values())
    ids = model.generate(**inputs, prefix_allowed_tokens_fn=allowed, max_new_tokens=longest, do_sample=False)
    rows = ids[:, begin:].tolist()
    return [next(label for label, each in answers.items() if row[: len(each)] == list(each)) for row in rows]
