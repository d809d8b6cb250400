"""An adapter on its base, ready to answer as its safety.json says."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration

from recipes.adapter.folder import Adapter
from recipes.adapter.lora import load_adapter
from recipes.adapter.safety_record import SafetyRecord
from recipes.answering.scoring import Scorer, label_token_ids
from recipes.batches.collator import CPU, VisionCollator
from recipes.model import loading
from recipes.model.device import choose_device, compile_layers, has_room_to_merge
from recipes.model.quantized import unpack_quantized


@dataclass(frozen=True)
class AdaptedModel:
    """A loaded adapter with all that its answers need; `model` is the base with it on, or with it merged in.

    `collator` makes batches on the CPU, also in worker processes; `card_collator` cuts frames up where the model lies.
    """

    model: PeftModel | Qwen2VLForConditionalGeneration
    collator: VisionCollator
    card_collator: VisionCollator
    record: SafetyRecord
    scorer: Scorer

    def p_unsafe(self, images: Sequence[Image.Image]) -> list[float]:
        """Return P(UNSAFE) of each RGB image, scored as one batch, whichever thread asks.

        Raises NoProbabilityError where one is no number.
        """
        batch = self.card_collator.prompts([{"image": image, "prompt": self.record.prompt} for image in images])
        return self.scorer(batch).tolist()


def load_for_frames(adapter: Adapter, *, compiled: bool = False) -> AdaptedModel:
    """Load an adapter to answer single frames as fast as the machine allows.

    It is merged into its base in 16 bits where the card has room for that, and frames of a size that keeps coming are
    replayed. `compiled` takes ten seconds more and is a fifth faster. Raises InputError as load_for_batches does.
    """
    device = choose_device()
    merge = has_room_to_merge(adapter.base, device)
    adapted = load_for_batches(adapter, merge=merge, cuda_graphs=device.type == "cuda")
    if compiled:
        compile_layers(adapted.model)
    return adapted


def load_for_batches(adapter: Adapter, *, merge: bool = False, cuda_graphs: bool = False) -> AdaptedModel:
    """Load the adapter in `folder` on its base, on the GPU where there is one.

    On a GPU the base's embedding and LM head stay in host memory, and what the record says is in 4 bits stays so. With
    `merge` everything lies on the card in the record's precision and the adapter is part of the weights: three times
    the memory, and faster. `cuda_graphs` replays frames of a size that keeps coming. Raises InputError where the
    adapter is damaged or doesn't fit.
    """
    record, dtype, device = adapter.record, getattr(torch, adapter.record.dtype), choose_device()
    on_host = device.type == "cuda" and not merge
    model = loading.load_base(
        adapter.base,
        dtype=dtype,
        load_in_4bit=record.load_in_4bit,
        device=device,
        placement=loading.Placement(embedding_on_host=on_host, head_on_host=on_host),
    )
    if device.type == "cpu" and record.dtype != "float32":
        print("no GPU that torch can use: answering on the CPU, which takes minutes a frame", file=sys.stderr)
    if merge and record.load_in_4bit:
        unpack_quantized(model, dtype)
    adapted = load_adapter(model, adapter.folder, merge=merge)
    processor = loading.load_processor(adapter.folder)
    collator, card_collator = (
        VisionCollator(processor, record.max_pixels, max_side=record.max_side, dtype=dtype, device=place)
        for place in (CPU, device)
    )
    for each in (collator, card_collator):
        each.prompt_ids(record.prompt)  # kept from now on: a tokenizer takes one thread at a time
    scorer = Scorer(adapted, label_token_ids(collator), cuda_graphs=cuda_graphs)
    return AdaptedModel(adapted, collator, card_collator, record, scorer)
