"""Training that diverged, told at once: a gradient that is no number, noticed without making the GPU wait."""

import torch

from data_prep.errors import InputError
from recipes.layers.host_memory import page_locked


class GradientWatch:
    """Looks at the norm of every update's gradient: before the update on a CPU, one update later on a GPU.

    There the norm travels to the host beside the work that follows. To ask for it at once would leave the GPU without
    work until the next micro-batch is queued.
    """

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._norm: torch.Tensor | None = None  # on a GPU's host, page-locked
        self._arrived: torch.cuda.Event | None = None
        self._update = 0

    def note(self, norm: torch.Tensor, update: int) -> None:
        """Take the norm of the gradient, a scalar, that update number `update` is made with, after the one before it.

        Raises InputError where one that has arrived is no number.
        """
        self.check()
        self._update = update
        if norm.device.type == "cpu":
            self._norm = norm
            self.check()
            return
        if self._norm is None or self._arrived is None:
            self._norm = page_locked(norm.nbytes).view(norm.dtype).view(())
            self._arrived = torch.cuda.Event()
        self._norm.copy_(norm.detach(), non_blocking=True)
        self._arrived.record()

    def check(self) -> None:
        """Wait for the last norm noted. Raises InputError where it is no number: the weights are lost from there on."""
        if self._norm is None:
            return
        if self._arrived is not None:
            self._arrived.synchronize()
        if not bool(self._norm.isfinite()):
            raise InputError(
                f"training diverged: the gradient of update {self._update} is no number ({self._norm.item()}); start "
                f"anew with a learning_rate below {self._learning_rate:g}; the checkpoints of earlier updates are whole"
            )
