"""An SFTTrainer that is one of several processes, each of which adds its frames to every update."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from trl import SFTTrainer

from recipes.batches.loader import init_worker
from recipes.metrics.seen_rows import SeenRows
from recipes.ranks.group import add_up, ask_to_stop, asked_to_stop, from_first, gathered, take_first
from recipes.ranks.place import here, is_alone, is_first
from recipes.ranks.shares import SharedSampler, UpdateShares
from recipes.training.card_progress import CardProgress
from recipes.training.noting import LogOddsNotes
from recipes.training.stopping import StopRequest
from recipes.training.trained_weights import TrainedWeights


class TrainingLeftError(Exception):
    """An update or a validation was left before its end by all processes, because one was asked to stop."""


class SharedTrainer(SFTTrainer):
    """Adds up, once an update, the gradients of all processes, each of which takes its rows of it.

    transformers takes each process to be alone (see take_place): nothing is wrapped, padded or scaled. All make the
    same updates of the same weights, which they began with; so each of them knows what the others do next. `request`
    notes the signals that this process gets.
    """

    trained: TrainedWeights
    request: StopRequest | None = None
    shares: UpdateShares
    notes: LogOddsNotes
    progress: CardProgress | None = None
    others_lost = False  # nothing may be waited for that is theirs
    _missing = 0  # micro-batches of the present update
    _begun = False  # that update

    def get_train_dataloader(self) -> DataLoader:
        """Return this process's training batches, on the CPU; its worker processes leave signals to it."""
        loader = super().get_train_dataloader()
        loader.device = None
        inner = loader.base_dataloader  # accelerate's wrapper iterates over this one
        inner.worker_init_fn = partial(init_worker, inner.worker_init_fn)
        update = self.get_total_train_batch_size(self.args)
        self.shares = UpdateShares(len(self.train_dataset), update, here().ranks)
        if not is_alone():
            sampler = inner.batch_sampler.sampler
            inner.batch_sampler.sampler = SharedSampler(sampler, self.shares, here().rank)
        return loader

    def get_total_train_batch_size(self, args: Any) -> int:
        """Return how many rows an update takes of all processes together."""
        return super().get_total_train_batch_size(args) * here().ranks

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """Return this process's micro-batches of an update, and how many rows it has in all processes.

        At an epoch's end there are fewer, and empty ones where others still have some.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = sum(len(batch["labels"]) for batch in batches)
        if is_alone():
            return batches, rows
        of_all = self.shares.rows_of(self.state.global_step)
        mine = range(of_all)[self.shares.part_of(here().rank, of_all)]
        if rows != len(mine):
            raise RuntimeError(f"update {self.state.global_step + 1}: {rows} rows came, not {len(mine)} of {of_all}")
        self._missing = num_batches
        self._begun = False
        return batches + [{}] * (num_batches - len(batches)), of_all

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: int | None = None
    ) -> torch.Tensor:
        """Add a micro-batch's gradients to the update's, and after its last one those of the other processes.

        Returns its share of the update's loss; `num_items_in_batch` is the number of the update's rows. Raises
        TrainingLeftError, in all processes alike, where one was asked to stop: before its next micro-batch.
        """
        if is_alone():
            return self.add_micro_batch(model, inputs, num_items_in_batch)
        if self.is_stopping():
            self._agree(stop=True)
        if not self._begun:
            torch.manual_seed(self._seed_of_update())
        self._missing, self._begun = self._missing - 1, True
        if self.progress is not None:
            self.progress.begin()
        loss = (
            self.add_micro_batch(model, inputs, num_items_in_batch)
            if inputs
            else torch.zeros((), device=self.args.device)
        )
        if not self._missing and self._agree(stop=False):
            self.trained.add_up_gradients()
        return loss

    def is_stopping(self) -> bool:
        """Say whether this process was asked to stop, of which it tells the others, or another one was."""
        if self._is_signalled():
            ask_to_stop()
            return True
        return asked_to_stop()

    def _is_signalled(self) -> bool:
        return self.request is not None and self.request.received is not None

    def add_micro_batch(self, model: torch.nn.Module, inputs: dict[str, Any], rows: int | None) -> torch.Tensor:
        """Add a micro-batch's gradients to the adapter's, and return its share of the loss of so many rows."""
        return super().training_step(model, inputs, rows)

    def _seed_of_update(self) -> int:
        """Return a seed for dropout that is this process's and this update's own, so that either can be made again."""
        own = [self.args.seed, self.state.global_step, here().rank]
        return int(np.random.SeedSequence(own).generate_state(1, np.uint64)[0] >> 1)

    def _agree(self, *, stop: bool) -> bool:
        """Say whether any process has gradients; raise TrainingLeftError where any was asked to stop.

        The card is waited for first, almost to the update's end: a process that is lost meanwhile is found here, by the
        host, which can tell of it. Of one that is lost later, cards wait for numbers without end.
        """
        if self.progress is not None:
            self.progress.wait(self._is_signalled)
        found = torch.tensor([stop, self.trained.has_gradients()], dtype=torch.int64)
        add_up(found)
        stopping, with_gradients = found.tolist()
        if stopping:
            raise TrainingLeftError
        return bool(with_gradients)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """Begin, or go on, with the first process's weights."""
        prepared = super()._prepare_for_training(*args, **kwargs)
        self.trained.take_first()
        if self.progress is not None:
            self.progress.close()
        if not is_alone() and self.args.device.type == "cuda":
            self.progress = CardProgress(self.trained.weights)
        return prepared

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Log the losses of all processes' rows."""
        if self.control.should_log and self.state.global_step > self._globalstep_last_logged:
            add_up(tr_loss)
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        add_up(self._tr_loss)
        return super()._finalize_training(*args, **kwargs)

    def seen_rows(self) -> SeenRows:
        """Return what was noted so far of all rows: of those of lost processes, what the last checkpoint holds."""
        noted = self.notes.collect()
        if is_alone() or self.others_lost:
            return noted
        noted = SeenRows.joined(gathered(noted))
        self.notes.go_on_from(noted if is_first() else None)
        return noted

    def leave_update(self, *, others_lost: bool = False) -> str:
        """Let go of an update that was begun, save the run as the last one left it, and say in a few words where."""
        self.forget_update()
        self.others_lost = others_lost
        return self.save_before_the_end()

    def save_alone(self) -> str:
        """Save the run where this process can't go on, whatever the others do, and say in a few words where."""
        self.others_lost = not is_alone()
        return self.save_before_the_end() if is_first() else "the first process saves a checkpoint"

    def forget_update(self) -> None:
        """Let go of what the present update has so far."""
        raise NotImplementedError

    def save_before_the_end(self) -> str:
        """Save the run as the last update left it, and say in a few words where."""
        raise NotImplementedError

    def share_adapter(self) -> None:
        """Have all processes hold the first one's adapter, which is the best one once training is over."""
        weights = [weight for name, weight in self.model.named_parameters() if "lora_" in name]
        for weight, precision in zip(weights, from_first([weight.dtype for weight in weights]), strict=True):
            weight.data = weight.data.to(precision)
            take_first(weight.data)

    def check_alike(self) -> None:
        """Raise RuntimeError where processes hold other weights than the first: they would train two adapters."""
        if is_alone():
            return
        digests = gathered(self.trained.digest())
        if len(set(digests)) > 1:
            raise RuntimeError(f"the processes' adapters differ after update {self.state.global_step}: {digests}")
