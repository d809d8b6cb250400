"""Pretrain the small base on freshly drawn scenes and questions about what they show; needs a GPU.

    python tiny_base/pretrain.py --out outputs/tiny_base

It starts from random weights and never sees the demo's clips, its question or its answers.
"""

import argparse
import json
import math
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from data_prep.console import run_script
from data_prep.errors import InputError
from data_prep.files import from_root, write_json

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader
    from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor

    from tiny_base.model_in_batches import Pretraining

TRAINING_SEED, HELD_OUT_SEED = 0, 1_000_000
HELD_OUT_BATCHES = 40
WARM_UP = 0.03


def main(argv: list[str]) -> int:
    """Train, measure on scenes never trained on, and write the model, its processor and figures into --out."""
    args = _parse(argv)
    out = from_root(args.out)
    if out.exists():
        raise InputError(f"--out {args.out} exists; remove it or name another folder")
    if args.go_on_from and not (from_root(args.go_on_from) / "model.safetensors").is_file():
        raise InputError(f"--go-on-from {args.go_on_from}: no model.safetensors there; name a folder that --out wrote")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    if not torch.cuda.is_available():
        raise InputError("no CUDA device: pretraining the small base needs one")
    from tiny_base.architecture import write_model
    from tiny_base.model_in_batches import Pretraining
    from tiny_base.pictures import ChatEncoder

    base, processor = _start(args.go_on_from)
    encoder = ChatEncoder(processor)
    model = Pretraining(base, processor, encoder.before_ids).to("cuda")
    started = time.monotonic()
    curve = train(model, _loader(encoder, args, args.seed), args.minutes, args.learning_rate)
    seconds = time.monotonic() - started
    model.to(torch.bfloat16)  # the figures are those of the weights as they are kept
    accuracy = measure(model, _loader(encoder, args, HELD_OUT_SEED))
    write_model(out, model.base, processor)
    write_json(out / "pretraining.json", describe(model, args, seconds, curve, accuracy))
    _print_table(accuracy)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="new folder for the model")
    parser.add_argument("--minutes", type=float, default=20, help="how long to train (default: %(default)s)")
    parser.add_argument("--go-on-from", help="folder of an earlier run whose weights to start from (default: random)")
    parser.add_argument("--seed", type=int, default=TRAINING_SEED, help="of the scenes drawn (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=128, help="pictures a batch (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=12, help="questions a picture (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="at its highest (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that draw (default: one a core)")
    return parser.parse_args(argv)


def _start(folder: str | None) -> "tuple[Qwen2VLForConditionalGeneration, Qwen2VLProcessor]":
    """Return a base and its processor: those in `folder`, in fp32, or random weights and a tokenizer made for them."""
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    if folder:
        processor = AutoProcessor.from_pretrained(from_root(folder), local_files_only=True)
        base = Qwen2VLForConditionalGeneration.from_pretrained(
            from_root(folder), dtype=torch.float32, local_files_only=True
        )
        return base, processor
    from tiny_base.architecture import make_config, make_processor, train_tokenizer
    from tiny_base.questions import all_texts

    torch.manual_seed(TRAINING_SEED)
    processor = make_processor(train_tokenizer(all_texts()))
    return Qwen2VLForConditionalGeneration(make_config(processor.tokenizer)), processor


def _loader(encoder: Any, args: argparse.Namespace, seed: int) -> "DataLoader":
    from torch.utils.data import DataLoader

    from tiny_base.pictures import FreshPictures

    pictures = FreshPictures(encoder, seed=seed, pictures=args.pictures, questions=args.questions)
    return DataLoader(pictures, batch_size=None, num_workers=args.workers, prefetch_factor=2)


def train(model: "Pretraining", batches: "DataLoader", minutes: float, learning_rate: float) -> list[dict[str, float]]:
    """Train for `minutes`: AdamW, a warm-up of a twentieth of the time, then a cosine to nothing. Return the curve."""
    import torch

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


def _parameter_groups(model: "torch.nn.Module") -> list[dict[str, Any]]:
    """Weight decay for matrices alone."""
    parameters = list(model.parameters())
    return [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": 0.05},
        {"params": [each for each in parameters if each.ndim == 1], "weight_decay": 0.0},
    ]


def measure(model: "Pretraining", batches: "DataLoader") -> dict[str, dict[str, float | int]]:
    """Return, by topic, how many questions were asked and the share that got exactly the right answer."""
    import torch

    model.eval()
    asked, right = Counter[str](), Counter[str]()
    for _, batch in zip(range(HELD_OUT_BATCHES), batches, strict=False):
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            correct = model.correct(batch).tolist()
        asked.update(batch.topics)
        right.update(topic for topic, hit in zip(batch.topics, correct, strict=True) if hit)
    return {topic: {"asked": asked[topic], "accuracy": right[topic] / asked[topic]} for topic in sorted(asked)}


def describe(
    model: "Pretraining",
    args: argparse.Namespace,
    seconds: float,
    curve: list[dict[str, float]],
    accuracy: dict[str, dict[str, float | int]],
) -> dict[str, Any]:
    """Say how the model was made and what it can do."""
    import torch
    import transformers

    return {
        "parameters": sum(each.numel() for each in model.parameters()),
        "settings": {name: value for name, value in vars(args).items() if name != "out"},
        "pictures": curve[-1]["step"] * args.pictures,
        "questions": curve[-1]["step"] * args.pictures * args.questions,
        "training_seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "accuracy": accuracy,
        "loss": curve,
    }


def _print_table(accuracy: dict[str, dict[str, float | int]]) -> None:
    for topic, figures in accuracy.items():
        print(f"{topic:<26}{figures['asked']:>8}{figures['accuracy']:>8.3f}")


if __name__ == "__main__":
    run_script(main)
