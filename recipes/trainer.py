"""The SFTTrainer subclass: row weights, label figures while training, whole checkpoints, an orderly stop."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback, TrainerControl
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import SFTTrainer

from data_prep.errors import InputError
from recipes.checkpoints import seal
from recipes.collator import IGNORED, VisionCollator
from recipes.metrics import class_ids, compute_figures
from recipes.safety_record import PLAIN_THRESHOLD
from recipes.scoring import score_rows
from recipes.signals import StopRequest, leave_process_group


def answer_loss(model: torch.nn.Module, inputs: dict[str, Any], longest_answer: int) -> torch.Tensor:
    """Return the weighted negative log-likelihood of the answers' tokens, a scalar: the mean over rows.

    `inputs` is a batch of VisionCollator, whose rows end with their answers. So the LM head runs on the last
    `longest_answer + 1` positions alone: for the 7B, logits of every position would take 1.5 MB a token.
    """
    inputs = dict(inputs)
    labels, weights = inputs.pop("labels"), inputs.pop("loss_weights")
    logits = model(**inputs, use_cache=False, logits_to_keep=longest_answer + 1).logits[:, :-1].float()
    losses = cross_entropy(logits.transpose(1, 2), labels[:, -longest_answer:], ignore_index=IGNORED, reduction="none")
    return (losses * weights[:, -longest_answer:]).sum() / len(labels)


class SafetyTrainer(SFTTrainer):
    """Train an adapter on the answers alone, and judge it on the validation split as it will be used.

    The data set's rows go to the collator as they are. Validation figures (`eval_accuracy`, `eval_f1`,
    `eval_macro_f1`, …) come from scoring.py, so that what picks the best checkpoint is what infer and eval compute.
    """

    data_collator: VisionCollator
    control: TrainerControl

    def __init__(self, *, model: PreTrainedModel, **kwargs: Any) -> None:
        # Checkpointing needs no gradient at its inputs in its non-reentrant form. The hooks that TRL and transformers
        # would set for it also sit on the vision tower's patch embedding and have the frozen tower back-propagate.
        model.enable_input_require_grads = lambda: None
        super().__init__(model=model, **kwargs)
        # The loss below is a mean over a micro-batch's rows, so accumulated micro-batches are to be averaged.
        self.model_accepts_loss_kwargs = False
        # SFTTrainer rounds the adapter to bf16; updates smaller than half a unit in the last place would be lost.
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        # Whether the base's vocabulary grew needs no look at the Hub: the adapter never touches the embedding.
        self.model.save_pretrained = partial(self.model.save_pretrained, save_embedding_layers=False)
        self._watch_vision_tower()

    def _watch_vision_tower(self) -> None:
        """Raise RuntimeError on the first batch if gradients would flow into the frozen vision tower."""

        def check(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            handle.remove()
            if output.pooler_output.requires_grad:
                raise RuntimeError("the vision tower is frozen, yet its features carry a gradient")

        handle = self.model.get_base_model().model.visual.register_forward_hook(check)

    def get_train_dataloader(self) -> DataLoader:
        """Return the training batches; their worker processes leave signals to this one."""
        loader = super().get_train_dataloader()
        inner = loader.base_dataloader  # accelerate's wrapper iterates over this one
        inner.worker_init_fn = partial(_init_worker, inner.worker_init_fn)
        return loader

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the batch's loss, the mean over its rows; see answer_loss."""
        return answer_loss(model, inputs, self.data_collator.longest_answer)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score the validation split and log its figures, each under `<metric_key_prefix>_<figure>`."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        p_unsafe = score_rows(
            self.model,
            self.data_collator,
            rows,
            batch_size=self.args.per_device_eval_batch_size,
            num_workers=self.args.dataloader_num_workers,
            show_progress=not self.args.disable_tqdm,
        )
        if not np.isfinite(p_unsafe).all():
            raise InputError(
                f"training diverged: at step {self.state.global_step} P(UNSAFE) is no number; start anew with a lower "
                "learning_rate"
            )
        truth = class_ids(rows["response"])
        figures = {
            "loss": _log_loss(p_unsafe, truth),
            **compute_figures(p_unsafe, truth, threshold=PLAIN_THRESHOLD),
        }
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items() if value is not None}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint, seal it, and only then let older ones go."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = limit
        seal(Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        rotate_checkpoints(
            output_dir=self.args.output_dir,
            save_total_limit=limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
        )


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


def _init_worker(seed_worker: Any, worker_id: int) -> None:
    leave_process_group()
    seed_worker(worker_id)


def _log_loss(p_unsafe: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean negative log-likelihood of the true labels, P clipped to [1e-7, 1 - 1e-7]."""
    p_true = np.where(truth == 1, p_unsafe, 1 - p_unsafe)
    return float(-np.log(p_true.clip(1e-7, 1 - 1e-7)).mean())
