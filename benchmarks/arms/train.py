"""The arms of bench_train.py, each measured in a process of its own: `python benchmarks/arms/train.py ARM --out DIR`.

What an arm returns is printed as the last line, in JSON.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from benchmarks.measuring.exactness import exactness
from benchmarks.measuring.flops import flops_per_frame
from data_prep.files import from_root
from data_prep.hub.source import open_dataset
from recipes import sft_qwen2vl
from recipes.model.base import find_base
from recipes.training.command_line import read_settings

GIB = 2**30
CONFIGS = {name: f"recipes/configs/qwen2vl_7b_{name}.yaml" for name in ("8gb", "6gb", "80gb")}
WORKERS = 4
STEPS_IN_BUDGET = 20
BLOCKS = 5

# What torch sets aside for cuBLAS a thread on cards before Hopper, 8 MiB; on an H100 it takes 32, unless told. Reading
# the variable at every product costs 35 microseconds, so where speed is the question it stays unset.
SMALL_CARD_WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8"}
SMALL_CARD_ARMS = ("6gb", "6gb_capped", "8gb_capped")


def main(argv: list[str]) -> int:
    """Measure one arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=sorted(ARMS))
    parser.add_argument("--out", required=True, help="the benchmark's folder, with base/ and data/")
    args = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    if args.arm in SMALL_CARD_ARMS:
        os.environ |= SMALL_CARD_WORKSPACE
    with contextlib.redirect_stdout(sys.stderr):
        figures = ARMS[args.arm](from_root(args.out))
    print(json.dumps(figures))
    return 0


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
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return ["--config", str(from_root(CONFIGS[recipe])), *flags]


def build(out: Path, recipe: str, **changed: Any) -> Any:
    """Build the trainer of a recipe as sft_qwen2vl.py does."""
    argv = arguments_of(out, recipe, f"measured-{recipe}", **changed)
    run = sft_qwen2vl.prepare_run(read_settings(argv), find_base(str(out / "base")))
    sft_qwen2vl.fill_vision_cache(run)
    torch.cuda.reset_peak_memory_stats()
    return sft_qwen2vl.build_trainer(run)


class Clock:
    """Times blocks of updates; a callback's body. The device is waited for at a block's ends alone."""

    def __init__(self, warm_up: int, updates_in_block: int) -> None:
        self.warm_up, self.updates_in_block = warm_up, updates_in_block
        self.blocks: list[float] = []
        self._begin = 0.0

    def tick(self, step: int) -> None:
        """Note that `step` updates are done."""
        done = step - self.warm_up
        if done < 0 or done % self.updates_in_block:
            return
        torch.cuda.synchronize()
        now = time.perf_counter()
        if done == 0:
            torch.cuda.reset_peak_memory_stats()
        else:
            self.blocks.append(now - self._begin)
        self._begin = now


def measure(
    trainer: Any, micro_batch: int, *, accumulation: int = 1, warm_up: int = 3, updates_in_block: int = 2
) -> dict[str, Any]:
    """Train some updates with the trainer's own loop and loader; return frames a second and memory at its peak."""
    from transformers import TrainerCallback

    clock = Clock(warm_up, updates_in_block)

    class Ticking(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.tick(state.global_step)

    trainer.args.per_device_train_batch_size = trainer._train_batch_size = micro_batch
    trainer.args.gradient_accumulation_steps = accumulation
    trainer.args.max_steps = warm_up + BLOCKS * updates_in_block
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.load_best_model_at_end = False
    trainer.args.logging_steps = 1000
    ticking = Ticking()
    trainer.add_callback(ticking)
    torch.cuda.empty_cache()
    trainer.train()
    trainer.remove_callback(ticking)
    frames = micro_batch * accumulation * updates_in_block
    rates = [frames / seconds for seconds in clock.blocks]
    return {
        "micro_batch": micro_batch,
        "accumulation": accumulation,
        "frames_per_second": median(rates),
        "frames_per_second_range": [min(rates), max(rates)],
        "peak_allocated_gib": torch.cuda.max_memory_allocated() / GIB,
        "peak_reserved_gib": torch.cuda.max_memory_reserved() / GIB,
    }


def with_loading(figures: dict[str, Any], loading_peak: int) -> dict[str, Any]:
    """Add what loading took at its peak, which a card must have room for, too."""
    return {**figures, "loading_peak_allocated_gib": loading_peak / GIB}


def stock(out: Path) -> list[dict[str, Any]]:
    """Measure TRL's own set-up: the choices of its vision example, its collator, its trainer."""
    from peft import LoraConfig
    from transformers import AutoProcessor, BitsAndBytesConfig, Qwen2VLForConditionalGeneration
    from trl import SFTConfig, SFTTrainer

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        out / "base", dtype=torch.bfloat16, quantization_config=quantization, device_map={"": 0}
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out / "runs" / "stock"),
            bf16=True,
            max_length=None,
            dataloader_num_workers=WORKERS,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=rows_for_trl(out),
        processing_class=AutoProcessor.from_pretrained(out / "base", max_pixels=max_pixels_of("80gb")),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    return [
        measure(trainer, 1, warm_up=4, updates_in_block=3),
        measure(trainer, 4, warm_up=2, updates_in_block=1),
        measure(trainer, 16, warm_up=2, updates_in_block=1),
    ]


def rows_for_trl(out: Path) -> Any:
    """Return the training rows in TRL's prompt-completion form with an image."""
    from datasets import Dataset, Features, Image, List, Value

    from data_prep.rows.jsonl import read_rows

    def message(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows = [
        {
            "images": [str(out / "data" / row.image)],
            "prompt": message("user", row.prompt),
            "completion": message("assistant", row.response),
        }
        for row in read_rows(out / "data" / "train.jsonl")
    ]
    turns = List({"role": Value("string"), "content": Value("string")})
    return Dataset.from_list(rows, features=Features({"images": List(Image()), "prompt": turns, "completion": turns}))


def max_pixels_of(recipe: str) -> int:
    """Return the pixel limit that a recipe sets."""
    return yaml.safe_load(from_root(CONFIGS[recipe]).read_text())["max_pixels"]


def small_card(out: Path, recipe: str) -> list[dict[str, Any]]:
    """Measure a small card's recipe at one and at four frames on the card, an update as it sets them: 16 frames."""
    trainer = build(out, recipe)
    loading = torch.cuda.max_memory_allocated()
    return [
        with_loading(measure(trainer, 1, accumulation=16, warm_up=1, updates_in_block=1), loading),
        with_loading(measure(trainer, 4, accumulation=4, warm_up=1, updates_in_block=1), loading),
    ]


def in_budget(out: Path, recipe: str, micro_batch: int, cap_gib: float) -> dict[str, Any]:
    """Run a recipe whole, from start to saved adapter, with no more of the card than a cap; it fails where it can't."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(cap_gib * GIB / total)
    run = f"capped-{recipe}"
    changed = {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": 1,
        "max_steps": STEPS_IN_BUDGET,
        "eval_steps": STEPS_IN_BUDGET,
        "save_steps": STEPS_IN_BUDGET,
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
    from recipes.batches.vision_cache import EncodedFrames, VisionCache, fill_cache

    rate = matmul_rate()
    trainer = build(out, "80gb", cuda_graphs=True)
    graphed, trainer.graphed = trainer.graphed, None
    loading = torch.cuda.max_memory_allocated()

    def one_frame_as_graph() -> dict[str, Any]:
        trainer.graphed = graphed
        found = measure(trainer, 1, warm_up=5, updates_in_block=8)
        trainer.graphed = None
        return found | {"peak_allocated_gib": None}  # a replay allocates nothing; what the graph holds is reserved

    figures: dict[str, Any] = {
        "matmul_tflops": rate / 1e12,
        "computed": with_loading(measure(trainer, 16), loading),
        "computed_fixed_batch": measure(fixed_batch(trainer, 16), 16),
        "computed_1": measure(trainer, 1, warm_up=4, updates_in_block=8),
        "computed_1_graph": one_frame_as_graph(),
    }
    base = find_base(str(out / "base"))
    cache = VisionCache(out / "vision", base, max_pixels=max_pixels_of("80gb"), dtype=torch.bfloat16)
    frames = EncodedFrames(open_dataset(str(out / "data")), ("train",))
    begin = time.perf_counter()
    device = trainer.model.device
    filled = fill_cache(
        cache,
        frames,
        trainer.data_collator,
        base,
        device=device,
        batch_size=16,
        num_workers=WORKERS,
    )
    figures["filling"] = {"frames": filled, "seconds": time.perf_counter() - begin}
    trainer.data_collator.read_features = cache.read
    figures["cached"] = measure(trainer, 16)
    figures["cached_1_graph"] = one_frame_as_graph()
    per_frame = flops_per_frame(json.loads((out / "base" / "config.json").read_text()), trainer, recomputed=False)
    for name, flops in (("computed", per_frame["vision"] + per_frame["language"]), ("cached", per_frame["language"])):
        executed = flops * figures[name]["frames_per_second"]
        figures[name] |= {"executed_tflops": executed / 1e12, "share_of_matmul": executed / rate}
    figures["flops_per_frame"] = per_frame
    return figures


def fixed_batch(trainer: Any, micro_batch: int) -> Any:
    """Have the trainer see one batch over and over for one training: what is left when nothing is waited for."""
    rows = [trainer.train_dataset[index] for index in range(micro_batch)]
    batch = {name: tensor.pin_memory() for name, tensor in trainer.data_collator(rows).items()}
    original = trainer.get_train_dataloader

    class Repeated(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            while True:
                yield batch

    def repeating() -> Any:
        trainer.get_train_dataloader = original
        return torch.utils.data.DataLoader(Repeated(), batch_size=None)

    trainer.get_train_dataloader = repeating
    return trainer


def matmul_rate(size: int = 8192) -> float:
    """Return the FLOP/s of a large bf16 matrix product on random data, the median of ten."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(13):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(5):
            a @ b
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - begin) / 5)
    return 2 * size**3 / median(seconds[3:])


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
    sys.exit(main(sys.argv[1:]))
