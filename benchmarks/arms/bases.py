"""The arms of bench_bases.py, each in a process of its own: `python benchmarks/arms/bases.py ARM --out DIR`.

What an arm returns is printed as the last line, in JSON.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2VLForConditionalGeneration

from benchmarks.measuring.arms import measure_arm
from benchmarks.measuring.card import free_what_was_left
from benchmarks.measuring.recipe_arguments import fixed_arguments, fixed_settings
from data_prep.hub.source import open_dataset
from data_prep.media.images import read_image
from recipes import eval_qwen2vl, sft_qwen2vl
from recipes.adapter.folder import Adapter
from recipes.adapter.safety_record import read_record
from recipes.answering.adapted_model import load_for_batches
from recipes.machine.memory import predict_memory
from recipes.model.base import find_base
from recipes.model.device import choose_device
from recipes.model.quantized import quantization_config

UPDATES = 3
WORKERS = 2


def train_and_evaluate(out: Path, name: str, recipe: str, base: Path, *, frames: int, **changed: Any) -> dict[str, Any]:
    """Train a few updates of `frames` at once by a fixed recipe, evaluate the adapter; return what it took.

    Vision features that a run before has kept aren't computed again, nor predicted.
    """
    kept_before = (out / "vision").exists()
    free_what_was_left()
    changed = {
        "per_device_train_batch_size": frames,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 1,
        **changed,
    }
    folder, begin = run_folder(out, name), time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)  # of an arm that was cut off
    status = sft_qwen2vl.main(arguments_of(out, folder, recipe, base, changed))
    if status:
        raise RuntimeError(f"training {name} ended with status {status}")
    free_what_was_left()
    eval_qwen2vl.main(["--adapter", str(folder), "--num-workers", str(WORKERS)])
    summary = json.loads((folder / "training.json").read_text())
    report = json.loads((folder / "eval" / "report.json").read_text())
    need = predict_memory({**fixed_settings(recipe), **changed}, find_base(str(base)).read_config())
    return {
        "run": name,
        "frames_at_once": frames,
        "steps": summary["steps"],
        "peak_allocated_gib": summary["peak_allocated_gib"],
        "predicted_gib": need.training_gib if kept_before else need.card_gib,
        "losses": [entry["loss"] for entry in summary["log_history"] if "loss" in entry],
        "frames_evaluated": report["results"]["frame"]["n"],
        "answer_p50_ms": report["latency_ms"]["p50"],
        "seconds": time.perf_counter() - begin,
    }


def run_folder(out: Path, name: str) -> Path:
    """Return the folder of a run."""
    return out / "runs" / name.replace(",", "").replace(" ", "_")


def arguments_of(out: Path, folder: Path, recipe: str, base: Path, changed: dict[str, Any]) -> list[str]:
    """Return the command line of a short run into `folder`."""
    settings = {
        "model_name_or_path": base,
        "dataset": out / "data",
        "output_dir": folder,
        "vision_cache": out / "vision",
        "dataloader_num_workers": WORKERS,
        "max_steps": UPDATES,
        "eval_steps": UPDATES,
        "save_steps": UPDATES,
        "logging_steps": 1,
        **changed,
    }
    return fixed_arguments(recipe, settings)


def six_gb(out: Path) -> dict[str, Any]:
    """The 6 GB recipe, its vision features computed, which takes the 2B's peak, and again with those kept."""
    shutil.rmtree(out / "vision", ignore_errors=True)
    names = "2B, 6gb", "2B, 6gb, features kept"
    return {"runs": [train_and_evaluate(out, name, "6gb", out / "2b", frames=4) for name in names]}


def eight_gb(out: Path) -> dict[str, Any]:
    """The 8 GB recipe as it is, and with embedding and head, which the 2B ties, in different places."""
    base = out / "2b"
    apart = {
        "embedding on the host, head on the card": {"embedding_on_host": True, "head_on_host": False},
        "head on the host, embedding on the card": {"embedding_on_host": False, "head_on_host": True},
    }
    runs = [train_and_evaluate(out, "2B, 8gb", "8gb", base, frames=1, gradient_accumulation_steps=2)]
    for where, places in apart.items():
        runs.append(train_and_evaluate(out, where, "8gb", base, frames=4, **places))
    return {"runs": runs}


def packed(out: Path) -> dict[str, Any]:
    """Pack the 2B as transformers saves it, train and evaluate on that, and compare with the 2B packed when loaded."""
    plain, ready = out / "2b", out / "2b_in_4_bits"
    write_packed(plain, ready)
    name = "2B in 4 bits, 8gb"
    runs = [train_and_evaluate(out, name, "8gb", ready, frames=2)]
    adapter = run_folder(out, name)
    ways = {"adapter on": False, "merged": True}
    p_unsafe = {
        (how, base): answers(out, adapter, base, merge=merge) for how, merge in ways.items() for base in (plain, ready)
    }
    off = {how: float((p_unsafe[how, plain] - p_unsafe[how, ready]).abs().max()) for how in ways}
    return {"runs": runs, "p_unsafe_off": off, "gigabytes": {base.name: size_of(base) / 1e9 for base in (plain, ready)}}


def write_packed(base: Path, folder: Path) -> None:
    """Write a base in bitsandbytes' 4 bits with its companions, as whoever publishes one would."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    Qwen2VLForConditionalGeneration.from_pretrained(
        base,
        dtype=torch.bfloat16,
        device_map={"": choose_device()},
        quantization_config=quantization_config(torch.bfloat16),
    ).save_pretrained(folder)


def answers(out: Path, adapter: Path, base: Path, *, merge: bool) -> torch.Tensor:
    """Return P(UNSAFE) of the test frames with an adapter on one of the bases, of shape (frames,)."""
    free_what_was_left()
    adapted = load_for_batches(Adapter(adapter, read_record(adapter), find_base(str(base))), merge=merge)
    rows = open_dataset(str(out / "data")).rows("test")
    return torch.tensor([adapted.p_unsafe([read_image(row["image"]["bytes"])])[0] for row in rows])


def size_of(folder: Path) -> int:
    """Return the bytes of a base's weight files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


ARMS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "6gb": six_gb,
    "8gb": eight_gb,
    "80gb": lambda out: {"runs": [train_and_evaluate(out, "2B, 80gb", "80gb", out / "2b", frames=4)]},
    "packed": packed,
}

if __name__ == "__main__":
    sys.exit(measure_arm(sys.argv[1:], __doc__, ARMS, as_on_small_cards=ARMS))
