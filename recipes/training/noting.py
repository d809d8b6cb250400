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
        self._rows: list[torch.Tensor] = []
        self._updates: list[int] = []
        self._waiting: list[torch.Tensor] = []

    def note(self, rows: torch.Tensor, update: int, log_odds: torch.Tensor) -> None:
        """Take a micro-batch's row numbers, on the CPU, and log-odds, anywhere, both of shape (batch,)."""
        self._rows.append(rows)
        self._updates += [update] * len(rows)
        self._waiting.append(log_odds.detach())
        if len(self._waiting) > _MOST_WAITING:
            self._waiting = [torch.cat(self._waiting)]

    def collect(self) -> SeenRows:
        """Return all that was noted so far; waits for the card."""
        if self._rows:
            arrived = SeenRows(
                torch.cat(self._rows).numpy(), np.array(self._updates), torch.cat(self._waiting).float().cpu().numpy()
            )
            self._arrived = SeenRows.joined([self._arrived, arrived])
            self._forget_waiting()
        return self._arrived

    def go_on_from(self, seen: SeenRows | None) -> None:
        """Begin with what was noted before a checkpoint, None for nothing, and forget what was since."""
        self._arrived = SeenRows.joined([]) if seen is None else seen
        self._forget_waiting()
