"""The README of an export: what it answers, what it scored, and lines to copy for each engine. Imports no torch."""

import json
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from data_prep.labels import LABELS, SAFE, UNSAFE
from recipes.adapter.label_tokens import LabelToken
from recipes.adapter.model_card import asking, figures_of, sealed
from recipes.adapter.safety_record import AS_TRAINED, SafetyRecord
from recipes.layers.sizes import TOKEN_SIDE

_BODY = """\
# {safe} or {unsafe}, asked of one CCTV frame: a whole model

`{base_model}`, revision `{base_revision}`, with the adapter `{adapter}` added to its weights. {weights} Any engine that
loads Qwen2-VL loads this folder. Shown one frame and asked

> {prompt}

it answers with one word. P({unsafe}) is the softmax over the first tokens of {labels}, {ids}, at the answer's first
position. From {threshold} on the frame is {unsafe} ({threshold_from}). `safety.json` holds all of this for the programs
of the project that wrote the folder.

Frames are to have at most {max_pixels} pixels{max_side}; `preprocessor_config.json` says so to engines that read it.

## Figures

{figures}

## How to ask it

Lines are for a shell or for Python in this folder, but for the project's own scripts, which are run where they lie.

**The project itself**, which prints {safe} or {unsafe}; `{folder}` is this folder:

```sh
python recipes/infer.py --adapter {folder} --image frame.jpg
```

**transformers**, 4.57 or 5, with `qwen-vl-utils`:

```python
import torch
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

model = Qwen2VLForConditionalGeneration.from_pretrained(".", dtype=torch.{dtype}, device_map="auto")
processor = AutoProcessor.from_pretrained(".")

{asking}
```

**vLLM**, from 0.30 on (not tried by the project): P from `logprob_token_ids`. For the word alone, put
`"structured_outputs": {{"choice": ["{safe}", "{unsafe}"]}}` and `"max_tokens": 4` in its place. vLLM also loads the
adapter itself beside its base (`--enable-lora`), for it is on the language model alone.

```sh
vllm serve . --served-model-name safe-unsafe --max-model-len 4096 --limit-mm-per-prompt '{{"image": 1}}'
(printf '%s' '{before_image}'; base64 -w 0 frame.jpg; printf '%s' '{after_image_vllm}') |
    curl --silent --json @- http://127.0.0.1:8000/v1/chat/completions
```

**llama.cpp**, which ignores `preprocessor_config.json`: `--image-max-tokens {max_tokens}` gives it the pixel limit. Its
advice to raise the least number of tokens is wrong for this model, which was trained within that limit.

```sh
python llama.cpp/convert_hf_to_gguf.py . --outfile model.gguf
python llama.cpp/convert_hf_to_gguf.py . --mmproj --outfile mmproj.gguf
llama-server --model model.gguf --mmproj mmproj.gguf --image-max-tokens {max_tokens} --port 8000
(printf '%s' '{before_image}'; base64 -w 0 frame.jpg; printf '%s' '{after_image}') |
    curl --silent --json @- http://127.0.0.1:8000/v1/chat/completions
```

Either server is asked, its two probabilities turned into P and held against the threshold, by

```sh
python recipes/infer.py --adapter {folder} --server http://127.0.0.1:8000/v1 --image frame.jpg
```

`generation_config.json` is the base's; engines sample by it where a request says nothing, and P doesn't depend on it.

## What it is not

**It is not a safety device.** It judges one frame, gives no reasons, and misses things. Use it to look again, not to
look away. Other cameras, another plant, another season: nothing here says how it does there.

## Licence and privacy

The base model's own licence holds for these weights. If the adapter was trained on "Video Dataset for Safe and Unsafe
Behaviours" (Önal and Dandıl, Mendeley Data, doi 10.17632/xjmtb22pff.1, CC BY 4.0): name its authors, and keep its
frames private, because workers can be recognised.
"""

_WEIGHTS = {
    True: "The base's weights are those that training saw: where it trained in 4 bits, their values written out.",
    False: "The base's weights are its own 16 bits, which training in 4 bits never saw. Its threshold is its own.",
}
_NO_FIGURES = {
    True: "None: the adapter wasn't evaluated before. `eval_qwen2vl.py` on this folder writes them here.",
    False: "None: the adapter's own are of other weights. `eval_qwen2vl.py` on this folder writes its own here.",
}


def export_card(
    record: SafetyRecord,
    folder: str,
    tokens: Mapping[str, LabelToken],
    report: dict[str, Any] | None = None,
    in_full: str = "eval/report.html",
) -> str:
    """Return the README.md of the export in `folder`, named from the project's root.

    Figures are those of `report`, of the adapter's evaluation or of the export's own; `in_full` says where that stands.
    """
    assert record.merged is not None
    as_trained = record.merged.base_weights == AS_TRAINED
    before, after = _request(record)
    ids = [tokens[label].id for label in LABELS]
    body = _BODY.format(
        **_of_record(record),
        adapter=record.merged.adapter,
        weights=_WEIGHTS[as_trained],
        figures=figures_of(report, in_full) if report else _NO_FIGURES[as_trained],
        folder=folder,
        ids=" and ".join(map(str, ids)),
        before_image=before,
        after_image=f'{after}, "top_logprobs": 20}}',
        after_image_vllm=f'{after}, "logprob_token_ids": {ids}}}',
    )
    return sealed(f"---\n{_front_matter(record).to_yaml()}\n---\n\n{body}")


def _front_matter(record: SafetyRecord) -> ModelCardData:
    return ModelCardData(
        base_model=record.base_model,
        base_model_relation="finetune",
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        language="en",
        tags=["qwen2_vl"],
        datasets=[record.dataset],
    )


def _of_record(record: SafetyRecord) -> dict[str, Any]:
    """Return what the README says of how the model is asked."""
    return {
        "safe": SAFE,
        "unsafe": UNSAFE,
        "base_model": record.base_model,
        "base_revision": record.base_revision,
        "prompt": "\n> ".join(record.prompt.splitlines()),
        "labels": " and ".join(LABELS),
        "threshold": record.threshold,
        "threshold_from": record.threshold_from,
        "max_pixels": record.max_pixels,
        "max_side": f", and at most {record.max_side} a side before that" if record.max_side else "",
        "max_tokens": record.max_pixels // TOKEN_SIDE**2,
        "dtype": record.dtype,
        "asking": asking(record),
    }


def _request(record: SafetyRecord) -> tuple[str, str]:
    """Return a request of OpenAI's chat form around its image in base64, but for its end, for single quotes."""
    prompt = json.dumps(record.prompt).replace("'", "\\u0027")
    before = '{"model": "safe-unsafe", "messages": [{"role": "user", "content": ['
    before += '{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,'
    after = f'"}}}}, {{"type": "text", "text": {prompt}}}]}}], "max_tokens": 1, "temperature": 0, "logprobs": true'
    return before, after
