"""A training process that comes to harm where the variable FAULT says so: `<rank> <update> <what happens>`.

It is started by a launcher, as recipes/sft_qwen2vl.py is, whose main it runs; started again it comes to no harm. What
it holds at each checkpoint goes to the folder DIGESTS. OTHER_DATA is the second process's data set, and with BLIND it
doesn't see the first one's checkpoints.
"""

import os
import signal
from pathlib import Path
from typing import Any

from data_prep.console import run_script
from recipes import sft_qwen2vl
from recipes.ranks.place import here, take_place

HARMS = {
    "killed": lambda _: kill(),
    "killed while adding up": lambda trainer: setattr(trainer.trained, "add_up_gradients", kill),
    "killed with its disk": lambda trainer: kill_with(trainer.folder.path),
    "terminated": lambda _: os.kill(os.getpid(), signal.SIGTERM),
    "launcher terminated": lambda _: os.kill(os.getppid(), signal.SIGTERM),
}


def kill() -> None:
    """End this process by a signal that it can't note."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_with(folder: Path) -> None:
    """End this process and have its folder be gone, as where it was another machine's."""
    folder.rename(f"{folder}-gone")
    kill()


def main(argv: list[str]) -> int:
    """Train, and come to harm in the middle of an update; of several micro-batches before the second."""
    again, second = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0", os.environ.get("RANK") == "1"
    place = take_place()  # as its main does, before torch looks for cards
    sft_qwen2vl.take_place = lambda environment=None: place
    from recipes.training import sent_checkpoint
    from recipes.training.shared_trainer import SharedTrainer
    from recipes.training.trainer import SafetyTrainer

    rank, update, harm = (os.environ.get("FAULT") or "0 -1 none").split(" ", 2)
    step, alike, evaluate, steps = SharedTrainer.training_step, SharedTrainer.check_alike, SafetyTrainer.evaluate, []

    def meets_harm(trainer: SharedTrainer, *, validating: bool) -> bool:
        now = (here().rank, trainer.state.global_step) == (int(rank), int(update))
        return not again and now and harm.endswith("validating") == validating

    def harmed(trainer: SharedTrainer, *args: Any) -> Any:
        if meets_harm(trainer, validating=False):
            steps.append(1)
            if len(steps) == min(2, trainer.args.gradient_accumulation_steps):
                HARMS[harm](trainer)
        return step(trainer, *args)

    def evaluated(trainer: SafetyTrainer, *args: Any, **how: Any) -> Any:
        if meets_harm(trainer, validating=True):
            HARMS[harm.removesuffix(" while validating")](trainer)
        return evaluate(trainer, *args, **how)

    def noted(trainer: SharedTrainer) -> None:
        name = f"{trainer.state.global_step}-{here().rank}"
        (Path(os.environ["DIGESTS"]) / name).write_text(trainer.trained.digest())
        alike(trainer)

    SharedTrainer.training_step = harmed  # type: ignore[method-assign, assignment]
    SafetyTrainer.evaluate = evaluated  # type: ignore[method-assign, assignment]
    if "DIGESTS" in os.environ:
        SharedTrainer.check_alike = noted  # type: ignore[method-assign, assignment]
    if "BLIND" in os.environ and second:
        sent_checkpoint._is_there = lambda *_: False
    if "OTHER_DATA" in os.environ and second:
        argv = [*argv, "--dataset", os.environ["OTHER_DATA"]]
    return sft_qwen2vl.main(argv)


if __name__ == "__main__":
    run_script(main)
