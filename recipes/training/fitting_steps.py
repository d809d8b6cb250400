"""Updates that fit a card whose memory other programs take, too: done again with fewer frames at once."""

import gc
import sys
from collections.abc import Callable

import torch

from data_prep.errors import InputError
from recipes.batches.parts import parts_of
from recipes.model.forward import Batch

MOST_TIMES = 3

Step = Callable[[Batch], torch.Tensor]


class FittingSteps:
    """Adds micro-batches' gradients to an update's, in parts once the card has run out of memory.

    An update's loss is a sum over its rows, so parts give what the whole would have. An update that was cut off is
    computed again from its first micro-batch: some of its gradients may have been added by then.
    """

    def __init__(self, *, forget: Callable[[], None], save: Callable[[], str], most_times: int = MOST_TIMES) -> None:
        """Begin with micro-batches as they come, to be made smaller so many times at most.

        `forget` lets go of the gradients of the present update; `save` saves the run as the last update left it and
        says in a few words where.
        """
        self._forget, self._save, self._most_times = forget, save, most_times
        self._frames: int | None = None  # at once
        self._times = 0
        self._done: list[Batch] = []

    def begin(self) -> None:
        """Note that an update begins."""
        self._done = []

    def add(self, batch: Batch, step: Step, update: int) -> torch.Tensor:
        """Take a micro-batch of an update by `step`, which adds its gradients, and return its share of the loss.

        Raises InputError where the card has run out of memory too often, or with a single frame.
        """
        self._done.append(batch)
        missing = [batch]
        while True:
            try:
                return [self._in_parts(each, step) for each in missing][-1]
            except torch.OutOfMemoryError:
                pass  # what it holds on to is let go of first
            self._shrink(update)
            missing = self._done

    def _in_parts(self, batch: Batch, step: Step) -> torch.Tensor:
        losses = [step(part) for part in parts_of(batch, self._frames or len(batch["labels"]))]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _shrink(self, update: int) -> None:
        self._forget()
        gc.collect()
        torch.cuda.empty_cache()
        frames = self._frames or max(len(batch["labels"]) for batch in self._done)
        said = f"the card ran out of memory at update {update}, with {frames} frames at once"
        if self._times == self._most_times or frames == 1:
            times = f", as it did {self._times} times before" if self._times else ""
            raise InputError(f"{said}{times}: {self._save()}; end what else uses the card, and go on with --resume")
        self._times, self._frames = self._times + 1, (frames + 1) // 2
        print(f"{said}: doing it again with {self._frames}", file=sys.stderr)
