"""A sitting of training: from the start or the last whole checkpoint to the end, or to a signal."""

import sys
from contextlib import redirect_stdout

from transformers import set_seed

from recipes.model.device import use_all_cores
from recipes.training.building import build_trainer, fill_vision_cache
from recipes.training.callbacks import StopOnRequest
from recipes.training.checkpoints import is_trained_out
from recipes.training.finishing import finish
from recipes.training.run import Run
from recipes.training.stopping import StopRequest
from recipes.training.trainer import SafetyTrainer


def train(run: Run) -> int:
    """Train from the start or the last whole checkpoint, save the best adapter; return the exit status."""
    use_all_cores()
    fill_vision_cache(run)
    set_seed(run.training.seed)
    with StopRequest() as stop, redirect_stdout(sys.stderr):  # the trainer prints progress; stdout is for results
        trainer = build_trainer(run)
        trainer.add_callback(StopOnRequest(stop))
        trained = resume(trainer) if run.recipe.resume else bool(trainer.train())
        trainer.watch.check()
    step = trainer.state.global_step
    if trained and stop.received and step < trainer.state.max_steps:
        print(f"stopped by {stop.received.name} at step {step}, checkpoint saved; go on with --resume", file=sys.stderr)
        return stop.exit_status
    finish(run, trainer, trained=trained)
    return 0


def resume(trainer: SafetyTrainer) -> bool:
    """Go on from the last whole checkpoint, or begin where there is none; say whether there was anything to train."""
    checkpoint = trainer.folder.last_checkpoint()
    print(f"resuming from {checkpoint.name if checkpoint else 'the start'}", file=sys.stderr)
    if checkpoint and is_trained_out(checkpoint):
        trainer.load_trained(checkpoint)
        return False
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return True
