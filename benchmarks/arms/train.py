"""The arms of bench_train.py, each measured in a process of its own: `python benchmarks/arms/train.py ARM --out DIR`.

What an arm returns is printed as the last line, in JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring.arms import measure_arm
from benchmarks.measuring.card import allow_no_more_than, matmul_rate
from benchmarks.measuring.exactness import exactness
from benchmarks.measuring.flops import flops_per_frame
from benchmarks.measuring.recipe_arguments import fixed_arguments, fixed_settings
from benchmarks.measuring.training_speed import fixed_batch, measure, measure_as_graph, with_loading
from data_prep.hub.source import open_dataset
from recipes import sft_qwen2vl
from recipes.batches.vision_cache import EncodedFrames, VisionCache, fill_cache
from recipes.model.base import find_base
from recipes.training.building import build_trainer, fill_vision_cache
from recipes.training.command_line import read_settings
from recipes.training.run import prepare_run

WORKERS = 4
STEPS_IN_BUDGET = 20
SMALL_CARD_ARMS = ("6gb", "6gb_capped", "8gb_capped")


def arguments_of(out: Path, recipe: str, run: str, **changed: Any) -> list[str]:
    """Return the command line of a run of `recipe` on the benchmark's base and frames."""
    settings = {
        "model_name_or_path": out / "base",
        "dataset": out / "data",
        "output_dir": out / "runs" / run,
        "vision_cache": out / "vision",
        "dataloader_num_workers": WORKERS,
        **changed,
    }
    return fixed_arguments(recipe, settings)


def build(out: Path, recipe: str, **changed: Any) -> Any:
    """Build the trainer of a recipe as sft_qwen2vl.py does."""
    argv = arguments_of(out, recipe, f"measured-{recipe}", **changed)
    run = prepare_run(read_settings(argv), find_base(str(out / "base")))
    fill_vision_cache(run)
    torch.cuda.reset_peak_memory_stats()
    return build_trainer(run)


def max_pixels_of(recipe: str) -> int:
    """Return the pixel limit that a recipe sets."""
    return int(fixed_settings(recipe)["max_pixels"])


def stock(out: Path) -> list[dict[str, Any]]:
    """Measure TRL's own set-up."""
    from benchmarks.measuring.stock_training import stock_trainer

    trainer = stock_trainer(out, max_pixels=max_pixels_of("80gb"), workers=WORKERS)
    return [
        measure(trainer, 1, warm_up=4, updates_in_block=3),
        measure(trainer, 4, warm_up=2, updates_in_block=1),
        measure(trainer, 16, warm_up=2, updates_in_block=1),
    ]


def small_card(out: Path, recipe: str) -> list[dict[str, Any]]:
    """Measure a small card's recipe at one and at four frames on the card, an update as it sets them: 16 frames."""
    trainer = build(out, recipe)
    loading = torch.cuda.max_memory_allocated()
    return [
        with_loading(measure(trainer, 1, accumulation=16, warm_up=1, updates_in_block=1), loading),
        with_loading(measure(trainer, 4, accumulation=4, warm_up=1, updates_in_block=1), loading),
    ]


def in_budget(out: Path, recipe: str, micro_batch: int, cap_gib: float, **further: Any) -> dict[str, Any]:
    """Run a recipe whole, from start to saved adapter, with no more of the card than a cap; it fails where it can't.

    `further` settings are changed for the run.
    """
    allow_no_more_than(cap_gib)
    run = f"capped-{recipe}-{cap_gib:g}"
    changed = {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": 1,
        "max_steps": STEPS_IN_BUDGET,
        "eval_steps": STEPS_IN_BUDGET,
        "save_steps": STEPS_IN_BUDGET,
        **further,
    }
    begin = time.perf_counter()
    status = sft_qwen2vl.main(arguments_of(out, recipe, run, **changed))
    seconds = time.perf_counter() - begin
    summary = json.loads((out / "runs" / run / "training.json").read_text())
    return {
        "cap_gib": cap_gib,
        "micro_batch": micro_batch,
        "status": status,
        "steps": summary["steps"],
        "peak_allocated_gib": summary["peak_allocated_gib"],
        "peak_reserved_gib": summary["peak_reserved_gib"],
        "whole_command_seconds": seconds,
        "losses": [entry["loss"] for entry in summary["log_history"] if "loss" in entry],
    }


def large_card(out: Path) -> dict[str, Any]:
    """Measure the large card's recipe: with the tower and with kept features, and what waiting for frames costs.

    At one frame it is measured with CUDA graphs, too, which the recipe leaves off for its 16.
    """
    rate = matmul_rate()
    trainer = build(out, "80gb", cuda_graphs=True)
    graphed, trainer.graphed = trainer.graphed, None
    loading = torch.cuda.max_memory_allocated()
    figures: dict[str, Any] = {
        "matmul_tflops": rate / 1e12,
        "computed": with_loading(measure(trainer, 16), loading),
        "computed_fixed_batch": measure(fixed_batch(trainer, 16), 16),
        "computed_1": measure(trainer, 1, warm_up=4, updates_in_block=8),
        "computed_1_graph": measure_as_graph(trainer, graphed),
    }
    figures["filling"] = keep_features(out, trainer)
    figures["cached"] = measure(trainer, 16)
    figures["cached_1_graph"] = measure_as_graph(trainer, graphed)
    per_frame = flops_per_frame(json.loads((out / "base" / "config.json").read_text()), trainer, recomputed=False)
    for name, flops in (("computed", per_frame["vision"] + per_frame["language"]), ("cached", per_frame["language"])):
        executed = flops * figures[name]["frames_per_second"]
        figures[name] |= {"executed_tflops": executed / 1e12, "share_of_matmul": executed / rate}
    figures["flops_per_frame"] = per_frame
    return figures


def keep_features(out: Path, trainer: Any) -> dict[str, Any]:
    """Have the trainer read its frames' vision features from a cache, which is filled here; return what that took."""
    base = find_base(str(out / "base"))
    cache = VisionCache(out / "vision", base, max_pixels=max_pixels_of("80gb"), dtype=torch.bfloat16)
    frames = EncodedFrames(open_dataset(str(out / "data")), ("train",))
    begin = time.perf_counter()
    filled = fill_cache(
        cache,
        frames,
        trainer.data_collator,
        base,
        device=trainer.model.device,
        batch_size=16,
        num_workers=WORKERS,
    )
    seconds = time.perf_counter() - begin
    trainer.data_collator.read_features = cache.read
    return {"frames": filled, "seconds": seconds}


ARMS: dict[str, Callable[[Path], Any]] = {
    "stock": stock,
    "8gb": lambda out: small_card(out, "8gb"),
    "8gb_capped": lambda out: in_budget(out, "8gb", 8, 7.2),
    "6gb": lambda out: small_card(out, "6gb"),
    "6gb_capped": lambda out: in_budget(out, "6gb", 4, 5.2),
    "80gb": large_card,
    "exactness": lambda out: exactness(out, max_pixels_of("80gb")),
}

if __name__ == "__main__":
    sys.exit(measure_arm(sys.argv[1:], __doc__, ARMS, as_on_small_cards=SMALL_CARD_ARMS))
