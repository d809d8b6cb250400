"""What one of several processes measures with the others: training, scoring, and what an update's sum takes."""

import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.measuring.recipe_arguments import fixed_arguments, recipe_arguments
from benchmarks.measuring.training_speed import measure
from recipes.answering.scoring import SplitScores, score_together
from recipes.batches.loader import batches
from recipes.model.base import find_base
from recipes.model.device import use_all_cores
from recipes.ranks.group import add_up, gathered
from recipes.ranks.place import by_itself, here
from recipes.training.building import build_trainer
from recipes.training.command_line import read_settings
from recipes.training.graphed_step import GraphedStep
from recipes.training.run import prepare_run

FRAMES = 16  # an update, of a card or of all
UPDATES, BLOCKS, WARM_UP = 4, 5, 3  # that a rate is timed over, how many rates there are, updates before them
ARGUMENTS = {
    "full": partial(fixed_arguments, "80gb"),
    "small": partial(recipe_arguments, "recipes/configs/demo_cpu.yaml"),
}
SCORED_AT_ONCE = 8  # fewer than train: of 2,000 frames, four processes have 63 batches at most, and 62 at least
FEW_FRAMES = 8  # from which a share on replayed graphs is measured, too
REPEATED = 10  # sums of a vector of the gradients' size


def figures(size: str, out: Path, frames: int) -> dict[str, Any]:
    """Measure training at 16 frames a card and at 16 in all, a scoring pass, and what an update's sum takes."""
    use_all_cores()
    trainer, ranks = build(size, out), here().ranks
    errors = sending_errors(trainer)
    found = {"processes": ranks, "each": measured(trainer, FRAMES)}
    share = FRAMES // ranks
    if ranks > 1:
        found["alone_at_once"] = alone_at_once(trainer)
    found["in_all"] = found["each"] if ranks == 1 else measured(trainer, share)
    if size == "full" and ranks > 1 and share <= FEW_FRAMES:
        found["in_all_graph"] = with_graph(trainer, share)
    return {**found, "scoring": scoring(trainer, frames), "sum": summing(trainer), "sending_error": median(errors)}


def build(size: str, out: Path, **changed: Any) -> Any:
    """Build the trainer as sft_qwen2vl.py does, on rows that are repeated for epochs without a short update."""
    settings = {
        "model_name_or_path": out / "base",
        "dataset": out / "data",
        "output_dir": out / "runs",
        "per_device_train_batch_size": FRAMES,
        "gradient_accumulation_steps": here().ranks,
        "cache_vision_features": False,
        "report_to": "none",
        **changed,
    }
    argv = ARGUMENTS[size](settings)
    trainer = build_trainer(prepare_run(read_settings(argv), find_base(str(out / "base"))))
    rows = FRAMES * here().ranks * (WARM_UP + UPDATES * BLOCKS)
    trainer.train_dataset = repeated(trainer.train_dataset, rows)
    return trainer


def repeated(rows: Any, number: int) -> Any:
    """Return so many rows of a data set, from its first on, again and again."""
    return rows.select([each % len(rows) for each in range(number)])


def measured(trainer: Any, frames: int) -> dict[str, Any]:
    """Return the speed of updates in which each process takes so many frames, at once."""
    return measure(trainer, frames, warm_up=WARM_UP, updates_in_block=UPDATES, blocks=BLOCKS)


def alone_at_once(trainer: Any) -> list[float]:
    """Return each process's frames a second where all train at once, each by itself: what cards and host allow."""
    gathered(None)
    with by_itself():
        rate = measured(trainer, FRAMES)["frames_per_second"]
    return gathered(rate)


def with_graph(trainer: Any, share: int) -> dict[str, Any]:
    """Return what measured does where each micro-batch is one CUDA graph."""
    trainer.graphed = GraphedStep(trainer.model.get_base_model())
    found = measured(trainer, share)
    trainer.graphed = None
    return found


def sending_errors(trainer: Any) -> list[float]:
    """Have each update note how far gradients summed in bf16 are from the same ones summed in fp32, relative to these.

    It is done for the updates before the first that is timed.
    """
    errors: list[float] = []
    add = trainer.trained.add_up_gradients

    def noted() -> None:
        if len(errors) < WARM_UP - 1:
            gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in trainer.trained.weights]
            exact = torch.cat([each.flatten().float() for each in gradients])
            sent = exact.bfloat16()
            add_up(exact)
            add_up(sent)
            errors.append(float((sent.float() - exact).norm() / exact.norm()))
        add()

    trainer.trained.add_up_gradients = noted
    return errors if here().ranks > 1 else [0.0]


def scoring(trainer: Any, frames: int) -> dict[str, Any]:
    """Time the scoring of so many frames, shared by all processes, after a few that aren't counted."""
    rows = repeated(trainer.eval_dataset, frames)
    how: dict[str, int] = {"batch_size": SCORED_AT_ONCE, "num_workers": trainer.args.dataloader_num_workers}

    def score(rows: Any) -> SplitScores:
        return score_together(trainer.model, trainer.data_collator, rows, **how)

    score(repeated(rows, 2 * SCORED_AT_ONCE * here().ranks))
    gathered(None)
    begin = time.perf_counter()
    next(iter(batches(rows, trainer.data_collator.prompts, **how)))
    first_batch = time.perf_counter() - begin
    gathered(None)
    begin = time.perf_counter()
    scored = score(rows)
    seconds = time.perf_counter() - begin
    return {
        "frames": len(scored.p_unsafe),
        "seconds": seconds,
        "frames_per_second": frames / seconds,
        "first_batch_seconds": first_batch,
    }


def summing(trainer: Any) -> dict[str, Any]:
    """Time the sum of a vector of the gradients' size where the adapter lies, and count what it sends over loopback.

    That is counted for the same bytes in host memory, which gloo adds up over the network as it does between machines.
    """
    weights = trainer.trained.weights
    vector = torch.cat([weight.detach().flatten() for weight in weights])
    host = torch.zeros(vector.numel(), dtype=vector.dtype)
    sums: dict[str, Any] = {"bytes": vector.nbytes, "milliseconds": 1000 * _seconds(vector)}
    before = loopback_bytes()
    sums["milliseconds_on_host"] = 1000 * _seconds(host)
    gathered(None)
    sent = (loopback_bytes() - before) / (REPEATED + 1) / here().ranks
    return sums | {"sent_bytes_a_process": sent}


def _seconds(vector: torch.Tensor) -> float:
    times = []
    for _ in range(REPEATED + 1):
        gathered(None)
        begin = time.perf_counter()
        add_up(vector)
        if vector.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return median(times[1:])


def loopback_bytes() -> int:
    """Return the bytes that this machine has sent to itself so far."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))
