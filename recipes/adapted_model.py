"""An adapter on its base, ready to answer as its safety.json says."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from PIL import Image

from recipes import modeling
from recipes.base_model import BaseModel
from recipes.collator import VisionCollator
from recipes.safety_record import SafetyRecord
from recipes.scoring import label_token_ids, score


@dataclass(frozen=True)
class AdaptedModel:
    """A loaded adapter with all that its answers need."""

    model: PeftModel
    collator: VisionCollator
    record: SafetyRecord

    def p_unsafe(self, images: Sequence[Image.Image]) -> list[float]:
        """Return P(UNSAFE) of each RGB image, scored as one batch."""
        batch = self.collator.prompts([{"image": image, "prompt": self.record.prompt} for image in images])
        return score(self.model, batch, label_token_ids(self.collator)).tolist()


def load_adapted(folder: Path, record: SafetyRecord, base: BaseModel) -> AdaptedModel:
    """Load the adapter in `folder` on its base, on the GPU where there is one.

    Raises InputError where the adapter is damaged or doesn't fit.
    """
    dtype, device = getattr(torch, record.dtype), modeling.choose_device()
    on_host = device.type == "cuda"
    model = modeling.load_base(
        base,
        dtype=dtype,
        load_in_4bit=record.load_in_4bit,
        device=device,
        placement=modeling.Placement(embedding_on_host=on_host, head_on_host=on_host),
    )
    if device.type == "cpu" and record.dtype != "float32":
        print("no GPU that torch can use: answering on the CPU, which takes minutes a frame", file=sys.stderr)
    collator = VisionCollator(modeling.load_processor(folder), record.max_pixels, dtype=dtype)
    return AdaptedModel(modeling.load_adapter(model, folder), collator, record)
