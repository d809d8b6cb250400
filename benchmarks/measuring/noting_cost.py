"""What noting the log-odds costs a training step: the same micro-batches with it and without, in turns."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import cross_entropy

from benchmarks.measuring.demo_runs import CONFIG
from recipes.layers.losses import IGNORED
from recipes.model.base import find_base
from recipes.training.building import build_trainer, fill_vision_cache
from recipes.training.command_line import read_settings
from recipes.training.run import prepare_run

WARM_UP, PAIRS = 10, 150


def noting_cost(data: Path, out: Path) -> dict[str, Any]:
    """Return the seconds that a training step of the demo's recipe takes with noting and without, medians over turns.

    They are of this process's CPU time, which other programs on the machine don't add to. `checkpoint_seconds` is what
    a checkpoint's file of a whole run takes to write.
    """
    flags = ["--config", CONFIG, "--dataset", str(data), "--output_dir", str(out), "--report_to", "none"]
    settings = read_settings(flags)
    run = prepare_run(settings, find_base(settings.values["model_name_or_path"]))
    fill_vision_cache(run)
    trainer = build_trainer(run)
    trainer.model.train()
    rows = trainer.train_dataset
    batch = trainer.data_collator([rows[number] for number in range(run.training.per_device_train_batch_size)])
    trainer.current_gradient_accumulation_steps = 1

    def step() -> None:
        trainer.training_step(trainer.model, batch, len(batch["labels"]))
        trainer.model.zero_grad()

    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * (WARM_UP + PAIRS)):
        noting = turn % 4 in (0, 3)  # each goes first in every other pair
        with nullcontext() if noting else without_noting(trainer):
            taken[noting].append(seconds_of(step))
    noted, plain = (taken[noting][WARM_UP:] for noting in (True, False))
    out.mkdir(parents=True, exist_ok=True)
    return {
        "with_ms": 1000 * median(noted),
        "without_ms": 1000 * median(plain),
        "share": median(noted) / median(plain) - 1,
        "share_of_pairs": median(one / other - 1 for one, other in zip(noted, plain, strict=True)),
        "pairs": PAIRS,
        "checkpoint_seconds": seconds_of(lambda: trainer.notes.collect().write(out)),
    }


@contextmanager
def without_noting(trainer: Any) -> Iterator[None]:
    """Have a step compute the loss alone, as it did before anything was noted of it."""

    def losses(head: Any, hidden: Any, labels: Any, _rivals: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found = cross_entropy(head(hidden).float(), labels, ignore_index=IGNORED, reduction="none")
        return found, found.detach()

    with patch("recipes.model.loss.token_losses", losses), patch.object(trainer.notes, "note", lambda *_noted: None):
        yield


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the CPU seconds that this process spends on some work."""
    begin = time.process_time()
    work()
    return time.process_time() - begin
