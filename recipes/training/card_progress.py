"""How far a card has got with an update, so that the host has what comes after it ready when the card is."""

import time
from collections.abc import Callable, Sequence

import torch

from recipes.ranks.group import RankLostError

LAYERS_LEFT = 1 / 7  # of the decoder layers, that are still to be passed back through near the end
ASK_SECONDS = 0.0005
LAUNCHER_SECONDS = 15.0  # of the 30 that a launcher leaves before it kills


class CardProgress:
    """Waits for a card to be near the end of an update's last backward pass.

    The host, which launches what the card is to do long before that is done, would have to begin anew if the card stood
    still when it goes on: 30 of an update's 550 ms were lost so on two H200s. Weights are those that train, in the
    order of their layers.

    A host that is blocked in CUDA itself can tell nothing, as where it fetches a sum for its own optimizer, or a loss
    to log: its launcher ends it after 30 s.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self._marked = False
        self._near_the_end = torch.cuda.Event()
        self._handle = weights[int(len(weights) * LAYERS_LEFT)].register_post_accumulate_grad_hook(self._mark)

    def close(self) -> None:
        """Let go of the weights."""
        self._handle.remove()

    def begin(self) -> None:
        """Note that another micro-batch begins: a mark of the one before says nothing of its end."""
        self._marked = False

    def _mark(self, weight: torch.Tensor) -> None:
        if torch.cuda.is_current_stream_capturing():  # replays of a graph come by no hook
            return
        self._near_the_end.record(torch.cuda.current_stream(weight.device))
        self._marked = True

    def wait(self, is_stopping: Callable[[], bool]) -> None:
        """Return once the card is near the end of all that it was given, at the end where that isn't known.

        Raises CardStuckError where it doesn't get there after a launcher began to end this process.
        """
        if not self._marked:
            self._near_the_end.record()
        self._marked = False
        end = None
        while not self._near_the_end.query():
            if end is None and is_stopping():
                end = time.monotonic() + LAUNCHER_SECONDS
            if end is not None and time.monotonic() > end:
                raise CardStuckError(
                    "this card doesn't come to the end of an update, as when another process has ended within it: "
                    "the last checkpoint stays, go on with --resume"
                )
            time.sleep(ASK_SECONDS)


class CardStuckError(RankLostError):
    """A card waits for numbers of one that is gone; nothing can be read from it any more."""
