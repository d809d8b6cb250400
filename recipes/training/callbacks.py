"""What the trainer calls at the end of every update."""

from typing import Any

from transformers import TrainerCallback, TrainerControl

from recipes.training.stopping import StopRequest


class StopOnRequest(TrainerCallback):
    """Once a stop is requested, finish the update, have the trainer save a checkpoint, and stop training."""

    def __init__(self, request: StopRequest) -> None:
        self.request = request

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Ask for a checkpoint and a stop once the signal has come."""
        if self.request.received:
            control.should_save = True
            control.should_training_stop = True
        return control
