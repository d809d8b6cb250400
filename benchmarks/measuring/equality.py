"""Does every fast way answer as the plain one? P(UNSAFE) and labels of 64 frames at full size, way by way.

What is compared with is the plain forward in fp32, by transformers' and PEFT's own modules on the same 4-bit weights,
and the labels that stock `generate` gives. The plain forward in bf16 stands beside ours, so that what rounding alone
costs can be seen.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

from benchmarks.measuring.answer_times import COMPARED, Bench, as_graph, rows_of
from benchmarks.measuring.held_generation import generate_held, question
from data_prep.labels import LABELS, UNSAFE
from data_prep.media.images import read_image
from recipes.answering.scoring import label_token_ids
from recipes.batches.collator import VisionCollator
from recipes.metrics.threshold import PLAIN_THRESHOLD
from recipes.model.compiling import compile_layers
from recipes.model.quantized import quantization_config

NOISE = 2e-2  # of P(UNSAFE) in bf16: a frame closer to the threshold may be answered either way
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


def equality(bench: Bench) -> dict[str, Any]:
    """Return how far each way's P(UNSAFE) of 64 frames is from the plain forward in fp32; plain bf16 stands beside.

    Labels are compared with those that `generate` gives.
    """
    expected = plain_scores(bench, torch.float32)
    torch.cuda.empty_cache()
    labels = generated_labels(bench)
    torch.cuda.empty_cache()
    found: dict[str, Any] = {
        "plain, fp32": {"from": float(expected.min()), "to": float(expected.max())},
        "generated": {label: labels.count(label) for label in LABELS},
        "plain, bf16": difference(plain_scores(bench, torch.bfloat16), expected, labels),
    }
    for name, merge in {"4-bit": False, "merged": True}.items():
        torch.cuda.empty_cache()
        for way, p_unsafe in ways_of(bench, merge=merge):
            found[f"{name}, {way}"] = difference(p_unsafe, expected, labels)
    return found


def ways_of(bench: Bench, *, merge: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the ways to answer with the adapter merged or not, each with its P(UNSAFE) of the compared frames."""
    adapted, _ = bench.load(merge=merge)
    for size in BATCH_SIZES:
        yield f"batches of {size}", scores(bench, adapted.collator, adapted.scorer, size)
    yield "graph", scores(bench, adapted.collator, as_graph(adapted).scorer, 1)
    yield "graph, frames shrunk on the card", scores(bench, adapted.card_collator, as_graph(adapted).scorer, 1)
    if merge:
        compile_layers(adapted.model)
        yield "compiled graph", scores(bench, adapted.collator, as_graph(adapted).scorer, 1)


def plain_scores(bench: Bench, dtype: torch.dtype) -> torch.Tensor:
    """Return P(UNSAFE) of the compared frames by transformers' and PEFT's own forward."""
    model, processor = stock_model(bench, dtype)
    processor.tokenizer.padding_side = "left"
    collator = VisionCollator(processor, bench.adapter.record.max_pixels, dtype=dtype)
    ids = label_token_ids(collator)

    def plain(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            logits = model(**{name: tensor.cuda() for name, tensor in batch.items()}).logits[:, -1, ids]
        return logits.float().softmax(-1)[:, LABELS.index(UNSAFE)]

    return scores(bench, collator, plain, 1)


def generated_labels(bench: Bench) -> list[str]:
    """Return what stock `generate` in bf16 answers the compared frames when held to the two answers."""
    model, processor = stock_model(bench)
    processor.tokenizer.padding_side = "left"
    text = question(processor, bench.adapter.record.prompt)
    answers = VisionCollator(processor, bench.adapter.record.max_pixels).answer_ids
    labels = []
    for first in range(0, COMPARED, 8):
        images = [read_image(encoded) for encoded in bench.encoded[first : first + 8]]
        inputs = processor(text=[text] * len(images), images=images, padding=True, return_tensors="pt").to("cuda")
        labels += generate_held(model, inputs, answers, end_id=processor.tokenizer.eos_token_id)
    return labels


def stock_model(bench: Bench, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, Any]:
    """Return transformers' and PEFT's own modules on the same 4-bit weights, and the processor."""
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        bench.out / "base",
        dtype=dtype,
        quantization_config=quantization_config(dtype),
        device_map={"": 0},
    )
    adapted = PeftModel.from_pretrained(model, bench.adapter.folder).eval()
    return adapted, AutoProcessor.from_pretrained(bench.adapter.folder, max_pixels=bench.adapter.record.max_pixels)


def scores(
    bench: Bench, collator: VisionCollator, score: Callable[[dict[str, torch.Tensor]], Any], size: int
) -> torch.Tensor:
    """Return P(UNSAFE) of the compared frames, in batches of `size`."""
    starts = range(0, COMPARED, size)
    batches = (collator.prompts(rows_of(bench, range(first, first + size))) for first in starts)
    return torch.cat([torch.as_tensor(score(batch)).cpu() for batch in batches])


def difference(found: torch.Tensor, expected: torch.Tensor, generated: list[str]) -> dict[str, float]:
    """Return the largest difference of P, and in how many frames the label differs at the plain threshold.

    `other_labels` counts against `expected`, `unlike_generate` against the generated labels; in the latter, frames
    within NOISE of the threshold don't count, and `too_close` says how many those are.
    """
    unsafe = torch.tensor([label == UNSAFE for label in generated])
    close = (found - PLAIN_THRESHOLD).abs() <= NOISE
    return {
        "max": float((found - expected).abs().max()),
        "median": float((found - expected).abs().median()),
        "other_labels": int(((found >= PLAIN_THRESHOLD) != (expected >= PLAIN_THRESHOLD)).sum()),
        "unlike_generate": int((((found >= PLAIN_THRESHOLD) != unsafe) & ~close).sum()),
        "too_close": int(close.sum()),
    }
