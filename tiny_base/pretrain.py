"""Pretrain the small base on freshly drawn scenes and questions about what they show; needs a GPU.

    python tiny_base/pretrain.py --out outputs/tiny_base

It starts from random weights and never sees the demo's clips, its question or its answers.
"""

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from data_prep.console import run_script
from data_prep.errors import InputError
from data_prep.files import from_root, write_json

if TYPE_CHECKING:
    from tiny_base.model_in_batches import Pretraining
    from tiny_base.training import Accuracy

TRAINING_SEED, HELD_OUT_SEED = 0, 1_000_000


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
    from tiny_base.training import fresh_batches, measure, start, train

    base, processor = start(from_root(args.go_on_from) if args.go_on_from else None, TRAINING_SEED)
    encoder = ChatEncoder(processor)
    of_a_batch = {"pictures": args.pictures, "questions": args.questions, "workers": args.workers}
    model = Pretraining(base, processor, encoder.before_ids).to("cuda")
    started = time.monotonic()
    curve = train(model, fresh_batches(encoder, seed=args.seed, **of_a_batch), args.minutes, args.learning_rate)
    seconds = time.monotonic() - started
    model.to(torch.bfloat16)  # the figures are those of the weights as they are kept
    accuracy = measure(model, fresh_batches(encoder, seed=HELD_OUT_SEED, **of_a_batch))
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


def describe(
    model: "Pretraining",
    args: argparse.Namespace,
    seconds: float,
    curve: list[dict[str, float]],
    accuracy: "Accuracy",
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


def _print_table(accuracy: "Accuracy") -> None:
    for topic, figures in accuracy.items():
        print(f"{topic:<26}{figures['asked']:>8}{figures['accuracy']:>8.3f}")


if __name__ == "__main__":
    run_script(main)
