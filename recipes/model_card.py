"""The card that stands beside an adapter: what it answers, what it was made from, what it is not."""

from recipes.safety_record import SafetyRecord

_CARD = """\
---
base_model: {base_model}
library_name: peft
pipeline_tag: image-text-to-text
tags:
- lora
- qwen2_vl
---

# SAFE or UNSAFE, asked of one CCTV frame

A LoRA adapter (QLoRA: {quantization}) on `{base_model}`, revision `{base_revision}`. Shown one frame and asked

> {prompt}

it gives P(UNSAFE), the softmax over the first tokens of {labels} at the answer's first position. From {threshold} on
the frame is UNSAFE. `safety.json` holds all of this for the programs that use it.

Trained on the data set `{dataset}`, content hash `{dataset_hash}`, seed {seed}; frames shrunk to at most {max_pixels}
pixels. Its figures on the test split are in `eval/report.json`, once it was evaluated.

**It is not a safety device.** It judges one frame, gives no reasons, and misses things.

If the data set was made from "Video Dataset for Safe and Unsafe Behaviours" (Önal and Dandıl, Mendeley Data, doi
10.17632/xjmtb22pff.1, CC BY 4.0): name its authors, and keep its frames private, because workers can be recognised.
"""


def model_card(record: SafetyRecord) -> str:
    """Return the adapter's README.md."""
    return _CARD.format(
        base_model=record.base_model,
        base_revision=record.base_revision,
        quantization="base in 4 bits" if record.load_in_4bit else f"base in {record.dtype}",
        prompt=record.prompt,
        labels=" and ".join(record.labels),
        threshold=record.threshold,
        dataset=record.dataset,
        dataset_hash=record.dataset_hash,
        seed=record.seed,
        max_pixels=record.max_pixels,
    )
