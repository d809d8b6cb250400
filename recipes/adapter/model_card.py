"""The card that stands beside an adapter: what it answers, how to load it, what it scored, what it is not."""

import hashlib
import json
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from data_prep.labels import SAFE, UNSAFE
from recipes.adapter.safety_record import SafetyRecord

CARD_FILE = "README.md"
_FIGURES = {"accuracy": "Accuracy", "f1": f"F1 of {UNSAFE}", "macro_f1": "Macro-F1", "auroc": "AUROC"}
_SEAL = "<!-- written by eval_qwen2vl.py and sft_qwen2vl.py, which leave it alone once it was changed: "

_BODY = """\
# {safe} or {unsafe}, asked of one CCTV frame

A LoRA adapter (QLoRA: {quantization}) on `{base_model}`, revision `{base_revision}`. Shown one frame and asked

> {prompt}

it gives P({unsafe}), the softmax over the first tokens of {labels} at the answer's first position. From {threshold} on
the frame is {unsafe} ({threshold_from}). `safety.json` holds all of this for the programs that use it.

Trained on the data set `{dataset}`, content hash `{dataset_hash}`, seed {seed}; frames shrunk to at most {max_pixels}
pixels. Curves: `training.png`.

## Figures

{figures}

## How to load it

```python
{loading}
```

and how to ask it about a frame:

```python
{asking}
```

## What it is not

**It is not a safety device.** It judges one frame, gives no reasons, and misses things. Use it to look again, not to
look away. Other cameras, another plant, another season: nothing here says how it does there.

## Licence and privacy

If the data set was made from "Video Dataset for Safe and Unsafe Behaviours" (Önal and Dandıl, Mendeley Data, doi
10.17632/xjmtb22pff.1, CC BY 4.0): name its authors, and keep its frames private, because workers can be recognised. The
base model's own licence holds for its weights.
"""

_LOADING = """\
import torch
from peft import PeftModel
from transformers import AutoProcessor, BitsAndBytesConfig, Qwen2VLForConditionalGeneration
{quantized}base = Qwen2VLForConditionalGeneration.from_pretrained({base_model}, {settings})
model, processor = PeftModel.from_pretrained(base, {folder}), AutoProcessor.from_pretrained({folder})"""

_QUANTIZED = """\
four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, \
bnb_4bit_compute_dtype=torch.{dtype}, llm_int8_skip_modules=["model.visual", "lm_head"])
"""

_ASKING = """\
from PIL import Image, ImageOps
from qwen_vl_utils import process_vision_info

image = ImageOps.exif_transpose(Image.open("frame.jpg")).convert("RGB")
{shrinking}frame = {{"type": "image", "image": image, "max_pixels": {max_pixels}}}
question = {{"type": "text", "text": {prompt}}}
messages = [{{"role": "user", "content": [frame, question]}}]
text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
images, _ = process_vision_info(messages)
inputs = processor(text=[text], images=images, do_resize=False, return_tensors="pt").to(model.device)
safe, unsafe = (processor.tokenizer.encode(label)[0] for label in {labels})
with torch.no_grad():
    p_unsafe = model(**inputs).logits[0, -1, [safe, unsafe]].float().softmax(0)[1].item()
print("{unsafe}" if p_unsafe >= {threshold} else "{safe}")"""

_IN_FULL = "eval/report.html"
_NO_FIGURES = f"None yet: `eval_qwen2vl.py` writes them here, and in full to `{_IN_FULL}`."

_SHRINKING = "image.thumbnail(({max_side}, {max_side}), Image.Resampling.BICUBIC)  # as training's frames were\n"


def model_card(record: SafetyRecord, folder: str, report: dict[str, Any] | None = None) -> str:
    """Return the README.md of the adapter in `folder`, named from the project's root.

    Figures are those of report.json, of the adapter's own test split; without one the card says that there are none.
    """
    return sealed(f"---\n{_front_matter(record, folder, report).to_yaml()}\n---\n\n{_body(record, folder, report)}")


def sealed(card: str) -> str:
    """Return a card with the mark by which is_own_card knows it."""
    return f"{card}\n{_SEAL}{_digest(card)} -->\n"


def is_own_card(card: str) -> bool:
    """Say whether a card is still as model_card wrote it."""
    text, found, seal = card.partition(f"\n{_SEAL}")
    return bool(found) and seal == f"{_digest(text)} -->\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _front_matter(record: SafetyRecord, folder: str, report: dict[str, Any] | None) -> ModelCardData:
    results = [
        EvalResult(
            task_type="image-classification",
            task_name=f"{SAFE} or {UNSAFE}, one CCTV frame",
            dataset_type=record.dataset,
            dataset_name=record.dataset,
            dataset_split=report["config"]["split"],
            dataset_revision=record.dataset_revision,
            metric_type=name,
            metric_name=f"{words}, {unit}s",
            metric_value=report["results"][unit][name],
        )
        for unit in ("frame", "clip")
        for name, words in _FIGURES.items()
        if report and report["results"][unit] and report["results"][unit][name] is not None
    ]
    return ModelCardData(
        base_model=record.base_model,
        library_name="peft",
        pipeline_tag="image-text-to-text",
        language="en",
        tags=["lora", "qlora", "qwen2_vl", "base_model:adapter:" + record.base_model],
        datasets=[record.dataset],
        metrics=["accuracy", "f1"],
        model_name=folder.rpartition("/")[2],
        eval_results=results or None,
    )


def _body(record: SafetyRecord, folder: str, report: dict[str, Any] | None) -> str:
    return _BODY.format(
        base_model=record.base_model,
        base_revision=record.base_revision,
        prompt="\n> ".join(record.prompt.splitlines()),
        threshold=record.threshold,
        threshold_from=record.threshold_from,
        dataset=record.dataset,
        dataset_hash=record.dataset_hash,
        seed=record.seed,
        max_pixels=record.max_pixels,
        labels=" and ".join(record.labels),
        safe=SAFE,
        unsafe=UNSAFE,
        quantization="base in 4 bits" if record.load_in_4bit else f"base in {record.dtype}",
        figures=figures_of(report, _IN_FULL) if report else _NO_FIGURES,
        loading=_loading(record, folder),
        asking=asking(record),
    )


def _loading(record: SafetyRecord, folder: str) -> str:
    on_hub = not record.base_model.startswith((".", "/"))
    loaded_with = [f"dtype=torch.{record.dtype}"]
    if on_hub:
        loaded_with.append(f"revision={_literal(record.base_revision)}")
    if record.load_in_4bit:
        loaded_with += ["quantization_config=four_bits", 'device_map="auto"']
    return _LOADING.format(
        base_model=_literal(record.base_model),
        settings=", ".join(loaded_with),
        folder=_literal(folder),
        quantized=_QUANTIZED.format(dtype=record.dtype) if record.load_in_4bit else "",
    )


def asking(record: SafetyRecord) -> str:
    """Return lines of Python that ask a loaded `model` and `processor` about frame.jpg."""
    return _ASKING.format(
        shrinking=_SHRINKING.format(max_side=record.max_side) if record.max_side else "",
        max_pixels=record.max_pixels,
        prompt=_literal(record.prompt),
        labels=tuple(record.labels),
        threshold=record.threshold,
        safe=SAFE,
        unsafe=UNSAFE,
    )


def _literal(text: str) -> str:
    """Return a string as Python code, in double quotes whatever it holds: JSON's escapes are Python's, too."""
    return json.dumps(text, ensure_ascii=False)


def figures_of(report: dict[str, Any], in_full: str) -> str:
    """Return a report's figures as a table with its intervals; `in_full` says where all of it stands."""
    lines = ["| test split | frames (95 % interval) | clips (95 % interval) |", "|---|---:|---:|"]
    for name, words in _FIGURES.items():
        lines.append(f"| {words} | {' | '.join(_cell(report['results'][unit], name) for unit in ('frame', 'clip'))} |")
    counts = " and ".join(f"{results['n']} {unit}s" for unit, results in report["results"].items() if results)
    lines += ["", f"On {counts}; intervals from a bootstrap over clips. In full: `{in_full}`."]
    return "\n".join(lines)


def _cell(results: dict[str, Any] | None, name: str) -> str:
    if results is None or results[name] is None:
        return "-"
    bounds = results["intervals"][name]
    return f"{results[name]:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")
