"""What the trainer calls when it begins, and at the end of every update."""

from typing import Any

from transformers import TrainerCallback, TrainerControl

from recipes.training.stopping import StopRequest


class RecomputeFirst(TrainerCallback):
    """Have activation checkpointing recompute the first `layers` decoder layers alone.

    The others keep their activations. The backward pass is through with them, and has let go of those, before it
    recomputes the first of the others.
    """

    def __init__(self, layers: int) -> None:
        self.layers = layers

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Switch off the recomputation of the other layers, where the trainer has just switched on that of all."""
        for number, layer in enumerate(kwargs["model"].get_base_model().model.language_model.layers):
            layer.gradient_checkpointing = args.activation_checkpointing and number < self.layers


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

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Let nothing be due that is due at an epoch's end, where the stop came before it."""
        if self.request.received and state.epoch != round(state.epoch):
            control.should_evaluate = control.should_save = False
        return control
