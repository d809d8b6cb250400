"""How fast a trainer trains by its own loop and loader, and what it takes of the card meanwhile."""

import math
import time
from statistics import median
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.measuring.card import peaks
from data_prep.disk.byte_counts import GIB

BLOCKS = 5


class Clock(TrainerCallback):
    """Times blocks of micro-batches after some to warm up. The device is waited for at a block's ends alone."""

    def __init__(self, warm_up: int, in_block: int) -> None:
        self.warm_up, self.in_block = warm_up, in_block
        self.blocks: list[float] = []
        self._done, self._begin = 0, 0.0

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note that one more micro-batch is done, not the last of its update."""
        self._note()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note that an update's last micro-batch is done, and the update with it."""
        self._note()

    def _note(self) -> None:
        self._done += 1
        timed = self._done - self.warm_up
        if timed < 0 or timed % self.in_block:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if timed == 0 and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if timed:
            self.blocks.append(now - self._begin)
        self._begin = now


def measure(
    trainer: Any,
    micro_batch: int,
    *,
    accumulation: int = 1,
    warm_up: float = 3,
    updates_in_block: int = 2,
    blocks: int = BLOCKS,
) -> dict[str, Any]:
    """Train some updates with the trainer's own loop and loader; return frames a second and memory at its peak.

    `warm_up` is in updates, and may be a part of one: a block then begins within an update and ends so far into a later
    one, and is as long as before.
    """
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = micro_batch
    trainer.args.gradient_accumulation_steps = accumulation
    trainer.args.max_steps = math.ceil(warm_up + blocks * updates_in_block)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.load_best_model_at_end = False
    trainer.args.logging_steps = 1000
    clock = Clock(max(1, round(warm_up * accumulation)), updates_in_block * accumulation)
    trainer.add_callback(clock)
    torch.cuda.empty_cache()
    trainer.train()
    trainer.remove_callback(clock)
    frames = micro_batch * accumulation * updates_in_block
    rates = [frames / seconds for seconds in clock.blocks[:blocks]]
    return {
        "micro_batch": micro_batch,
        "accumulation": accumulation,
        "frames_per_second": median(rates),
        "frames_per_second_range": [min(rates), max(rates)],
        **peaks(),
    }


def measure_as_graph(trainer: Any, graphed: Any) -> dict[str, Any]:
    """Measure one frame at a time with `graphed` in the place of the trainer's step."""
    trainer.graphed = graphed
    found = measure(trainer, 1, warm_up=5, updates_in_block=8)
    trainer.graphed = None
    return found | {"peak_allocated_gib": None}  # a replay allocates nothing; what the graph holds is reserved


def with_loading(figures: dict[str, Any], loading_peak: int) -> dict[str, Any]:
    """Add what loading took at its peak, in bytes, which a card must have room for, too."""
    return {**figures, "loading_peak_allocated_gib": loading_peak / GIB}


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
