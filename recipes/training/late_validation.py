"""A validation that was cut off, which the run has made when it goes on from the checkpoint that was left then."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

from recipes.training.checkpoints import LATE_VALIDATION, validation_is_due


class TrainedOutError(Exception):
    """A validation that was made late says that nothing is left to train."""


class LateValidation(TrainerCallback, ExportableState):
    """Knows whether a validation is due, which checkpoints note with it; has it made before the next update.

    Without it another checkpoint might pass for the best, and early stopping would count otherwise than in a run that
    nothing disturbed. It is due from the time at which the trainer would make it until it has ended well. `validate`
    makes it and takes note of what it found.
    """

    def __init__(self, validate: Callable[[], None]) -> None:
        self._validate = validate
        self.is_due = False

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint notes, in transformers' own form."""
        return {"args": {}, "attributes": {"is_due": self.is_due}}

    def take_up(self, state: TrainerState) -> None:
        """Be as a checkpoint's state says; where an earlier version left one that notes nothing, none is due."""
        self.is_due = validation_is_due(vars(state))
        state.stateful_callbacks.setdefault(LATE_VALIDATION, self.state())  # its place from now on

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make what is due. Raises TrainedOutError where no update is to follow it."""
        if not self.is_due:
            return
        self._validate()
        if control.should_training_stop or state.global_step >= state.max_steps:
            raise TrainedOutError
