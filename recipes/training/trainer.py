"""The SFTTrainer subclass: row weights, label figures while training, whole checkpoints, an orderly stop."""

import math
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, TrainerControl

from data_prep.errors import InputError
from recipes.answering.scoring import NoProbabilityError, ScoringLeftError, score_rows
from recipes.batches.collator import ROW, VisionCollator
from recipes.layers.fused_lora import fuse_lora
from recipes.layers.joined_lora import join_adapters
from recipes.metrics.class_ids import class_ids
from recipes.metrics.safety_metric import compute_figures, log_loss
from recipes.metrics.threshold import PLAIN_THRESHOLD
from recipes.model.device import CardFullError
from recipes.model.loss import answer_loss, training_inputs
from recipes.ranks.earlier import leave_word
from recipes.ranks.group import from_first
from recipes.ranks.place import is_first
from recipes.training.checkpoints import checkpoint_of, read_state, validation_is_due
from recipes.training.divergence import GradientWatch
from recipes.training.fitting_steps import MOST_TIMES, FittingSteps
from recipes.training.graphed_step import GraphedStep
from recipes.training.host_optimizer import HostAdamW
from recipes.training.noting import LogOddsNotes
from recipes.training.resumed_trainer import ResumedTrainer
from recipes.training.run_folder import RunFolder
from recipes.training.shared_trainer import TrainingLeftError
from recipes.training.trained_weights import TrainedWeights


class SafetyTrainer(ResumedTrainer):
    """Train an adapter on the answers alone, and judge it on the validation split as it will be used.

    The data set's rows go to the collator as they are. Validation figures (`eval_accuracy`, `eval_f1`,
    `eval_macro_f1`, …) come from scoring.py, so that what picks the best checkpoint is what infer and eval compute.
    """

    data_collator: VisionCollator
    control: TrainerControl
    optimizer: torch.optim.Optimizer | None
    loss_is_scaled_for_ga = True  # compute_loss divides by an update's rows, however they fall into micro-batches

    def __init__(
        self, *, model: PreTrainedModel, optimizer_on_host: bool = False, cuda_graphs: bool = False, **kwargs: Any
    ) -> None:
        # Checkpointing needs no gradient at its inputs in its non-reentrant form. The hooks that TRL and transformers
        # would set for it also sit on the vision tower's patch embedding and have the frozen tower back-propagate.
        model.enable_input_require_grads = lambda: None
        # TRL's card would stand in the run's folder from the first checkpoint on; the run gets its own in the end.
        self.create_model_card = lambda **_described: None
        super().__init__(model=model, **kwargs)
        self.model_accepts_loss_kwargs = False  # or tokens would be counted, and the card waited for
        self.folder = RunFolder(Path(self.args.output_dir))
        self.optimizer_on_host = optimizer_on_host
        # transformers would let the last checkpoint go when training stops, before anything else is saved.
        self._checkpoints_kept, self.args.save_total_limit = self.args.save_total_limit, None
        self.watch = GradientWatch(self.args.learning_rate)
        self.notes = LogOddsNotes()
        self.trained = TrainedWeights(self.model.get_base_model().dtype if optimizer_on_host else torch.float32)
        self.trained.take(self.model)
        most_times = 0 if cuda_graphs else MOST_TIMES  # a graph's memory was taken when it was captured
        self.steps = FittingSteps(forget=self.forget_update, save=self.save_alone, most_times=most_times)
        fuse_lora(self.model)
        join_adapters(self.model, model.model.language_model)
        self.graphed = GraphedStep(self.model.get_base_model()) if cuda_graphs else None
        # Whether the base's vocabulary grew needs no look at the Hub: the adapter never touches the embedding.
        self.model.save_pretrained = partial(self.model.save_pretrained, save_embedding_layers=False)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer that the settings name, or the host's AdamW."""
        if self.optimizer is None and self.optimizer_on_host:
            self.optimizer = self.trained.on_host = HostAdamW(
                self.trained.weights,
                lr=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
            )
        return super().create_optimizer(model)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Leave a batch on the CPU: forward.py moves what the card needs, and reads the rest where it is."""
        return inputs

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """Clip the adapter's gradients and return their norm before."""
        return self.trained.clip_gradients(self.args.max_grad_norm)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor:
        """Return the norm that is logged, clipped or not. Raises InputError where training has diverged."""
        norm = self.trained.clip_gradients(math.inf) if grad_norm is None else grad_norm
        self.watch.note(norm, self.state.global_step + 1)
        return norm

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: nothing here reads the estimate, for which every module is walked through at every micro-batch."""
        return 0

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """Return an update's micro-batches, fewer at an epoch's end, and how many rows all processes have in it."""
        self.steps.begin()
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def add_micro_batch(self, model: torch.nn.Module, inputs: dict[str, Any], rows: int | None) -> torch.Tensor:
        """Add a micro-batch's gradients to the adapter's, and return its share of the loss of an update's `rows`."""
        step = partial(self._add_gradients, model, rows)
        return self.steps.add(inputs, step, self.state.global_step + 1)

    def _add_gradients(self, model: torch.nn.Module, rows: int | None, inputs: dict[str, Any]) -> torch.Tensor:
        if self.graphed is None:
            loss = super().add_micro_batch(model, inputs, rows)
        else:
            if not self.model.training:
                self.model.train()
            loss, log_odds = self.graphed(inputs, rows, self.trained.weights)
            self.notes.note(inputs[ROW], self.state.global_step + 1, log_odds)
        self.trained.add_gradients()
        return loss

    def forget_update(self) -> None:
        """Let go of what the present update has so far."""
        self.trained.forget_gradients()
        self.notes.forget(self.state.global_step + 1)

    def save_before_the_end(self) -> str:
        """Save the run as the last update left it, and say in a few words where."""
        step = self.state.global_step
        if not step:
            return "nothing was trained yet"
        checkpoint = checkpoint_of(self.folder.path, step)
        saved = checkpoint.is_dir()
        if saved and self.late_validation.is_due:  # at an epoch's end it may have been saved before it was validated
            saved = validation_is_due(read_state(checkpoint))
        if not (saved if self.others_lost else from_first(saved)):
            self._save_checkpoint(self.model, None)
        return f"checkpoint-{step} is saved"

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> torch.Tensor:
        """Return the batch's share of the update's loss, see answer_loss, and note its rows' log-odds.

        `num_items_in_batch` is the number of the update's rows, the batch's own by default.
        """
        base = self.model.get_base_model()
        loss, log_odds = answer_loss(base, training_inputs(base, inputs, num_items_in_batch))
        self.notes.note(inputs[ROW], self.state.global_step + 1, log_odds)
        return loss

    def score(self, rows: Any, **how: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return P(UNSAFE) and class id of every row, both of shape (rows,), each process having scored its part.

        `how` are further arguments of score_split. Raises InputError where P is no number.
        """
        try:
            p_unsafe = score_rows(
                self.model,
                self.data_collator,
                rows,
                batch_size=self.args.per_device_eval_batch_size,
                num_workers=self.args.dataloader_num_workers,
                show_progress=not self.args.disable_tqdm,
                **how,
            )
        except NoProbabilityError:
            raise InputError(
                f"training diverged: at step {self.state.global_step} P(UNSAFE) is no number; start anew with a lower "
                "learning_rate"
            ) from None
        except CardFullError as error:
            raise InputError(f"validation: {error}; {self.save_alone()}, go on with --resume") from None
        return p_unsafe, class_ids(rows["response"][:])

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score the validation split and log its figures, each under `<metric_key_prefix>_<figure>`.

        Raises TrainingLeftError where a process was asked to stop: before the next batch.
        """
        self.watch.check()
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        try:
            p_unsafe, truth = self.score(rows, is_left=self.is_stopping)
        except ScoringLeftError:
            raise TrainingLeftError from None
        figures = {
            "loss": log_loss(p_unsafe, truth),
            **compute_figures(p_unsafe, truth, threshold=PLAIN_THRESHOLD),
        }
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items() if value is not None}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint, seal it, and only then let older ones go. Raises InputError where training diverged."""
        self.watch.check()
        if not self.others_lost:
            self.check_alike()
        seen = self.seen_rows()
        if not is_first():
            return
        self.folder.write_checkpoint(
            self.state.global_step,
            partial(super()._save_checkpoint, model, trial),
            seen,
            kept=self._checkpoints_kept,
            best=self.state.best_model_checkpoint,
        )
        leave_word(self.folder.path.name, f"{self.state.global_step} {socket.gethostname()}")
