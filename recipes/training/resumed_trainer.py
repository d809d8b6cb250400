"""An SFTTrainer that goes on from a checkpoint as if nothing had been in between, on this machine or another."""

from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerState

from recipes.metrics.seen_rows import read_seen_rows
from recipes.ranks.place import is_first
from recipes.training.checkpoints import STATE_NAME, best_checkpoint, stopping_count
from recipes.training.late_validation import LateValidation
from recipes.training.run_folder import RunFolder
from recipes.training.shared_trainer import SharedTrainer


class ResumedTrainer(SharedTrainer):
    """Takes up what a checkpoint holds of a run: weights, notes, counts, and a validation that is due yet."""

    folder: RunFolder

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.late_validation = LateValidation(self._validate_late)
        self.add_callback(self.late_validation)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Load an adapter, and what was noted until then.

        PEFT puts new weights in fp32 in the place of ones in 16 bits, and those must train.
        """
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.trained.take(self.model)
        self.notes.go_on_from(read_seen_rows(Path(resume_from_checkpoint)) if is_first() else None)

    def _load_callback_state(self) -> None:
        """Have what a checkpoint says of its run hold here; called once its state is loaded.

        The best checkpoint lies in the run's folder, wherever that was when its path was noted. Early stopping goes on
        counting. Lengths in updates follow the settings, of which those of logging are free to change.
        """
        state = self.state
        self._find_best()
        state.compute_steps(self.args, state.max_steps)
        self.late_validation.take_up(state)
        count = stopping_count(vars(state))
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback) and count is not None:
                callback.early_stopping_patience_counter = count[0]

    def _find_best(self) -> None:
        if self.args.load_best_model_at_end and self.state.best_global_step and is_first():
            self.state.best_model_checkpoint = str(best_checkpoint(self.folder.path, self.state.best_global_step))

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Log, validate and save as is called for; what ends this process meanwhile leaves the validation due."""
        if self.control.should_evaluate:
            self.late_validation.is_due = True
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return a validation's figures; it isn't due any more then."""
        figures: dict[str, float] = super()._evaluate(*args, **kwargs)
        self.late_validation.is_due = False
        return figures

    def _validate_late(self) -> None:
        """Make a validation that was cut off as the run's last checkpoint was left, and choose by it."""
        self._determine_best_metric(metrics=self._evaluate(None, None), trial=None)
        self._find_best()

    def load_trained(self, checkpoint: Path) -> None:
        """Be as after training that ended at a checkpoint: with its state, and the best adapter where one is chosen."""
        self.state = TrainerState.load_from_json(str(checkpoint / STATE_NAME))
        self._load_callback_state()
        self._load_from_checkpoint(str(checkpoint))
        self.take_best()

    def take_best(self) -> None:
        """Hold the best adapter so far, where one is chosen; of several processes the first does, see share_adapter."""
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None and is_first():
            self._load_best_model()
