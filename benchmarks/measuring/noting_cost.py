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

import recipes.model.loss
from benchmarks.measuring.demo_runs import CONFIG
from recipes.layers.losses import IGNORED
from recipes.model.base import find_base
from recipes.training.building import build_trainer, fill_vision_cache
from recipes.training.command_line import read_settings
from recipes.training.run import prepare_run

WARM_UP, STEPS, LOSSES = 10, 60, 2000


def noting_cost(data: Path, out: Path) -> dict[str, Any]:
    """Return what a training step of the demo's recipe takes, and what noting adds to it.

    Whole steps with noting and without, in turns, differ by less than they differ among themselves; so `share` is of
    what is added alone: the loss and the note for one micro-batch, less the plain loss. Seconds are of this process's
    CPU time, which other programs on the machine add little to. `checkpoint_ms` is what a checkpoint's file takes.
    """
    trainer, batch = trainer_of(data, out)
    head = trainer.model.get_base_model().lm_head
    labels = batch["labels"].flatten()
    hidden = torch.randn(len(labels), head.weight.shape[1])
    rivals = batch["rivals"].repeat_interleave(batch["labels"].shape[1])

    def step() -> None:
        trainer.training_step(trainer.model, batch, len(batch["labels"]))
        trainer.model.zero_grad()

    def loss() -> None:
        _, log_odds = recipes.model.loss.token_losses(head, hidden, labels, rivals)
        trainer.notes.note(batch["row"], 1, log_odds[: len(batch["row"])])

    steps, losses = in_turns(trainer, step, STEPS), in_turns(trainer, loss, LOSSES)
    out.mkdir(parents=True, exist_ok=True)
    added_ms = median(losses[True]) - median(losses[False])
    return {
        "step_ms": median(steps[False]),
        "step_noted_ms": median(steps[True]),
        "steps": STEPS,
        "added_ms": added_ms,
        "share": added_ms / median(steps[False]),
        "losses": LOSSES,
        "checkpoint_ms": ms_of(lambda: trainer.notes.collect().write(out)),
    }


def trainer_of(data: Path, out: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a trainer by the demo's recipe, and a micro-batch of it."""
    flags = ["--config", CONFIG, "--dataset", str(data), "--output_dir", str(out), "--report_to", "none"]
    settings = read_settings(flags)
    run = prepare_run(settings, find_base(settings.values["model_name_or_path"]))
    fill_vision_cache(run)
    trainer = build_trainer(run)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    rows = trainer.train_dataset
    return trainer, trainer.data_collator([rows[row] for row in range(run.training.per_device_train_batch_size)])


def in_turns(trainer: Any, work: Callable[[], Any], pairs: int) -> dict[bool, list[float]]:
    """Return the milliseconds that some work takes with noting and without; each goes first in every other pair."""
    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * (WARM_UP + pairs)):
        noting = turn % 4 in (0, 3)
        with nullcontext() if noting else without_noting(trainer):
            taken[noting].append(ms_of(work))
    return {noting: times[WARM_UP:] for noting, times in taken.items()}


@contextmanager
def without_noting(trainer: Any) -> Iterator[None]:
    """Have a step compute the loss alone, as it did before anything was noted of it."""

    def losses(head: Any, hidden: Any, labels: Any, _rivals: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found = cross_entropy(head(hidden).float(), labels, ignore_index=IGNORED, reduction="none")
        return found, found.detach()

    with patch("recipes.model.loss.token_losses", losses), patch.object(trainer.notes, "note", lambda *_noted: None):
        yield


def ms_of(work: Callable[[], Any]) -> float:
    """Return the milliseconds of CPU time that this process spends on some work."""
    begin = time.process_time()
    work()
    return 1000 * (time.process_time() - begin)
