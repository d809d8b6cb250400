"""How fast an adapter answers frames that were drawn: one at a time and in batches, the model alone and from bytes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from benchmarks.made.drawn_frames import MAX_PIXELS
from benchmarks.made.random_adapter import write_random_adapter
from data_prep.media.images import read_image
from data_prep.rows.jsonl import read_rows
from recipes.adapter.folder import Adapter, find_adapter
from recipes.answering.adapted_model import AdaptedModel, load_for_batches
from recipes.answering.scoring import Scorer, label_token_ids
from recipes.batches.collator import VisionCollator
from recipes.metrics.threshold import label_of

WARM_UP, CALLS, BATCHES = 6, 40, 6
BATCH = 32
COMPARED = 64  # frames


@dataclass(frozen=True)
class Bench:
    """What all arms work with."""

    out: Path
    adapter: Adapter
    encoded: list[bytes]

    def load(self, **how: Any) -> tuple[AdaptedModel, float]:
        """Load the adapter on its base; return it with the seconds that took."""
        begin = time.perf_counter()
        adapted = load_for_batches(self.adapter, **how)
        torch.cuda.synchronize()
        return adapted, time.perf_counter() - begin


def open_bench(out: Path) -> Bench:
    """Read the frames; write the random adapter, unless it is there."""
    adapter = out / "adapter"
    if not adapter.exists():
        write_random_adapter(adapter, out / "base", max_pixels=MAX_PIXELS[480])
    rows = read_rows(out / "data" / "train.jsonl")
    encoded = [(out / "data" / row.image).read_bytes() for row in rows[: COMPARED + BATCH]]
    return Bench(out, find_adapter(adapter), encoded)


def timed(what: str, tokens: int, batch: int, call: Callable[[int], Any], calls: int = CALLS) -> dict[str, Any]:
    """Time single calls, the device waited for after each; `call` gets a number that counts up."""
    seconds = []
    for number in range(WARM_UP + calls):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call(number)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    counted = seconds[WARM_UP:]
    return {
        "what": what,
        "tokens": tokens,
        "batch": batch,
        "p50_ms": 1000 * median(counted),
        "p95_ms": 1000 * quantiles(counted, n=20)[-1],
        "first_ms": 1000 * seconds[0],
    }


def with_limit(adapted: AdaptedModel, max_pixels: int) -> AdaptedModel:
    """Return the same model asked about frames of another size."""

    def limited(collator: VisionCollator) -> VisionCollator:
        return VisionCollator(
            collator.processor, max_pixels, max_side=collator.max_side, dtype=collator.dtype, device=collator.device
        )

    return replace(adapted, collator=limited(adapted.collator), card_collator=limited(adapted.card_collator))


def rows_of(bench: Bench, frames: range) -> list[dict[str, Any]]:
    """Return rows of the frames with those numbers, as the data set gives them."""
    return [{"image": {"bytes": bench.encoded[number]}, "prompt": bench.adapter.record.prompt} for number in frames]


def pinned(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch in page-locked memory, as a loader leaves it."""
    return {name: tensor.pin_memory() for name, tensor in batch.items()}


def scoring(adapted: AdaptedModel, batch: dict[str, torch.Tensor]) -> Callable[[int], Any]:
    """Return a call that scores the same batch again, whatever its number."""
    return lambda _: adapted.scorer.on_device(batch)


def answers_alone(bench: Bench, adapted: AdaptedModel, what: str, calls: int) -> Iterator[dict[str, Any]]:
    """Time one frame, the model alone, at both sizes."""
    for tokens, max_pixels in MAX_PIXELS.items():
        batch = pinned(with_limit(adapted, max_pixels).collator.prompts(rows_of(bench, range(1))))
        yield timed(f"{what}, model alone", tokens, 1, scoring(adapted, batch), calls)


def answers(bench: Bench, adapted: AdaptedModel, what: str) -> Iterator[dict[str, Any]]:
    """Time one frame, the model alone and from JPEG bytes to the label, at both sizes."""
    for tokens, max_pixels in MAX_PIXELS.items():
        limited = with_limit(adapted, max_pixels)
        batch = pinned(limited.collator.prompts(rows_of(bench, range(1))))
        yield timed(f"{what}, model alone", tokens, 1, scoring(adapted, batch))

        def answer(number: int, limited: AdaptedModel = limited) -> str:
            image = read_image(bench.encoded[number % COMPARED])
            return label_of(limited.p_unsafe([image])[0], bench.adapter.record.threshold)

        yield timed(f"{what}, bytes to label", tokens, 1, answer)


def batches(bench: Bench, adapted: AdaptedModel, what: str) -> Iterator[dict[str, Any]]:
    """Time batches at both sizes, the model alone."""
    for tokens, max_pixels in MAX_PIXELS.items():
        batch = pinned(with_limit(adapted, max_pixels).collator.prompts(rows_of(bench, range(BATCH))))
        yield timed(f"{what}, model alone", tokens, BATCH, scoring(adapted, batch), BATCHES)


def as_graph(adapted: AdaptedModel) -> AdaptedModel:
    """Return the same model with its answers replayed."""
    scorer = Scorer(adapted.model, label_token_ids(adapted.collator), cuda_graphs=True)
    return replace(adapted, scorer=scorer)


def preprocessing(bench: Bench, adapted: AdaptedModel) -> Iterator[dict[str, Any]]:
    """Time what comes before the model: decoding, and from bytes to a batch on the CPU and on the card."""
    prompt = bench.adapter.record.prompt

    def image(number: int) -> Any:
        return read_image(bench.encoded[number % COMPARED])

    def batch_by(collator: VisionCollator) -> Callable[[int], Any]:
        return lambda number: collator.prompts([{"image": image(number), "prompt": prompt}])

    yield timed("decoding", 480, 1, image)
    yield timed("bytes to batch on the CPU", 480, 1, batch_by(adapted.collator))
    yield timed("bytes to batch on the card", 480, 1, batch_by(adapted.card_collator))
