"""What a run notes of its rows while it trains, without making the card wait."""

import numpy as np
import torch

from recipes.metrics.seen_rows import SeenRows

_MOST_WAITING = 1024  # parts on the card, of 512 bytes each at the least; then they are made one


class LogOddsNotes:
    """The log-odds of each row's label at each time it was seen. They stay on the card until someone asks for them."""

    def __init__(self) -> None:
        self._arrived = SeenRows.joined([])
        self._forget_waiting()

    def _forget_waiting(self) -> None:
        self._rows: list[int] = []
        self._updates: list[int] = []
        self._waiting: list[torch.Tensor] = []

    def note(self, rows: torch.Tensor, update: int, log_odds: torch.Tensor) -> None:
        """Take a micro-batch's row numbers, on the CPU, and log-odds, anywhere, both of shape (batch,)."""
        self._rows += rows.tolist()  # as a tensor they would hold a loader's shared memory
        self._updates += [update] * len(rows)
        self._waiting.append(log_odds.detach())
        if len(self._waiting) > _MOST_WAITING:
            self._waiting = [torch.cat(self._waiting)]

    def forget(self, update: int) -> None:
        """Forget what was noted of an update, the last one, that is to be computed again."""
        kept = len(self._updates) - self._updates.count(update)
        if kept < len(self._updates):
            self._waiting = [torch.cat(self._waiting)[:kept]]
            self._rows, self._updates = self._rows[:kept], self._updates[:kept]

    def collect(self) -> SeenRows:
        """Return all that was noted so far; waits for the card."""
        if self._rows:
            log_odds = torch.cat(self._waiting).float().cpu().numpy()
            arrived = SeenRows(np.array(self._rows), np.array(self._updates), log_odds)
            self._arrived = SeenRows.joined([self._arrived, arrived])
            self._forget_waiting()
        return self._arrived

    def go_on_from(self, seen: SeenRows | None) -> None:
        """Begin with what was noted before a checkpoint, None for nothing, and forget what was since."""
        self._arrived = SeenRows.joined([]) if seen is None else seen
        self._forget_waiting()
