"""Training the small base: what it starts from, its loop, and how often it is right then, by topic."""

import json
import math
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from tiny_base.architecture import make_config, make_processor, train_tokenizer
from tiny_base.model_in_batches import Pretraining
from tiny_base.pictures import ChatEncoder, FreshPictures
from tiny_base.questions import all_texts

HELD_OUT_BATCHES = 40
WARM_UP = 0.03

Accuracy = dict[str, dict[str, float | int]]


def start(folder: Path | None, seed: int) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLProcessor]:
    """Return a base and its processor: those in `folder`, in fp32, or random weights and a tokenizer made for them."""
    if folder:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        base = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return base, processor
    torch.manual_seed(seed)
    processor = make_processor(train_tokenizer(all_texts()))
    return Qwen2VLForConditionalGeneration(make_config(processor.tokenizer)), processor


def fresh_batches(encoder: ChatEncoder, *, seed: int, pictures: int, questions: int, workers: int) -> DataLoader:
    """Return an endless stream of batches that `workers` processes draw."""
    stream = FreshPictures(encoder, seed=seed, pictures=pictures, questions=questions)
    return DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=2)


def train(model: Pretraining, batches: DataLoader, minutes: float, learning_rate: float) -> list[dict[str, float]]:
    """Train for `minutes`: AdamW, a short warm-up, then a cosine to nothing. Return the curve."""
    optimizer = torch.optim.AdamW(_parameter_groups(model), betas=(0.9, 0.98), fused=True)
    model.train()
    curve: list[dict[str, float]] = []
    losses: list[torch.Tensor] = []
    started = time.monotonic()
    for step, batch in enumerate(batches, start=1):
        progress = (time.monotonic() - started) / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(progress)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        if step % 100 == 0 or progress >= 1:
            curve.append({"step": step, "loss": torch.stack(losses).mean().item(), "progress": round(progress, 4)})
            losses.clear()
            print(json.dumps(curve[-1]), file=sys.stderr)
        if progress >= 1:
            return curve
    raise RuntimeError("the stream of pictures ended")


def _schedule(progress: float) -> float:
    """Return the share of the highest learning rate at `progress`, from 0 to 1."""
    return progress / WARM_UP if progress < WARM_UP else 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices alone."""
    parameters = list(model.parameters())
    return [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": 0.05},
        {"params": [each for each in parameters if each.ndim == 1], "weight_decay": 0.0},
    ]


def measure(model: Pretraining, batches: DataLoader) -> Accuracy:
    """Return, by topic, how many questions were asked and the share that got exactly the right answer."""
    model.eval()
    asked, right = Counter[str](), Counter[str]()
    for _, batch in zip(range(HELD_OUT_BATCHES), batches, strict=False):
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            correct = model.correct(batch).tolist()
        asked.update(batch.topics)
        right.update(topic for topic, hit in zip(batch.topics, correct, strict=True) if hit)
    return {topic: {"asked": asked[topic], "accuracy": right[topic] / asked[topic]} for topic in sorted(asked)}
