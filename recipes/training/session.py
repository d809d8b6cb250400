"""A sitting of training: from the start or the last whole checkpoint to the end, or to a signal."""

import socket
import sys
from contextlib import redirect_stdout
from signal import SIGTERM

from transformers import set_seed

from recipes.model.device import use_all_cores
from recipes.ranks.earlier import earlier_word
from recipes.ranks.group import RankLostError, gathered, refuse_any
from recipes.ranks.place import is_alone, is_first
from recipes.training.building import build_trainer, fill_vision_cache
from recipes.training.callbacks import StopOnRequest
from recipes.training.card_progress import CardStuckError
from recipes.training.checkpoints import is_trained_out, step_of
from recipes.training.finishing import finish
from recipes.training.late_validation import TrainedOutError
from recipes.training.run import Run
from recipes.training.run_folder import RunFolder
from recipes.training.sent_checkpoint import checkpoint_for_all
from recipes.training.shared_trainer import TrainingLeftError
from recipes.training.stopping import StopRequest
from recipes.training.trainer import SafetyTrainer


def train(run: Run) -> int:
    """Train from the start or the last whole checkpoint, save the best adapter; return the exit status."""
    refuse_any(outdated(run.folder))
    use_all_cores()
    fill_vision_cache(run)
    set_seed(run.training.seed)
    stop = StopRequest() if is_alone() else StopRequest("before the next frames")
    with stop, redirect_stdout(sys.stderr):  # the trainer prints progress; stdout is for results
        trainer = build_trainer(run)
        trainer.request = stop
        if is_alone():
            trainer.add_callback(StopOnRequest(stop))
        try:
            trained = resume(trainer) if run.recipe.resume else bool(trainer.train())
        except TrainingLeftError:
            return leave(trainer, stop)
        except RankLostError as error:
            if not is_first() or isinstance(error, CardStuckError):
                raise
            saved = trainer.leave_update(others_lost=True)
            print(f"error: another process has ended: {saved}, go on with --resume", file=sys.stderr)
            raise SystemExit(2) from None
        trainer.watch.check()
    step = trainer.state.global_step
    if trained and stop.received and is_alone() and step < trainer.state.max_steps:
        print(f"stopped by {stop.received.name} at step {step}, checkpoint saved; go on with --resume", file=sys.stderr)
        return stop.exit_status
    trainer.share_adapter()
    finish(run, trainer, trained=trained)
    return 0


def leave(trainer: SafetyTrainer, stop: StopRequest) -> int:
    """Save a run that all processes stop, one of which was asked to; return the exit status."""
    saved = trainer.leave_update()
    if is_alone() and stop.received:
        print(f"stopped by {stop.received.name}: {saved}, go on with --resume", file=sys.stderr)
        return stop.exit_status
    gathered(None)  # a launcher that misses one ends the others, which may be saving
    print(f"stopped by a signal to a process: {saved}, go on with --resume", file=sys.stderr)
    return 128 + SIGTERM


def outdated(folder: RunFolder) -> str | None:
    """Say what is wrong where the first process finds less of a run than one before it, of the same launcher, saved."""
    word = earlier_word(folder.path.name) if is_first() else None
    if word is None:
        return None
    step, host = word.split()
    found = folder.last_checkpoint()
    if found is not None and step_of(found) >= int(step):
        return None
    return (
        f"checkpoint-{step} was saved on {host}, and {folder.path} on {socket.gethostname()}, where the first process "
        "is now, holds none as new; have output_dir lie on a disk that all machines share"
    )


def resume(trainer: SafetyTrainer) -> bool:
    """Go on from the last whole checkpoint, or begin where there is none; say whether there was anything to train."""
    found = trainer.folder.last_checkpoint() if is_first() else None
    print(f"resuming from {found.name if found else 'the start'}", file=sys.stderr)
    checkpoint = checkpoint_for_all(found, trainer.folder.path)
    if checkpoint and is_trained_out(checkpoint):
        trainer.load_trained(checkpoint)
        return False
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except TrainedOutError:
        trainer.take_best()
        return False
    return True
