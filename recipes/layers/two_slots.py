"""Weights of the host that pass through a card by turns: while some are used, the next ones are on their way."""

from collections.abc import Callable

import torch


class TwoSlots:
    """Two places on a device, for numbered weights that take turns in them: number n has slot n % 2.

    `fill` copies the weights of a number into their slot, in the current stream. On a GPU it is called in a stream of
    its own, in which a copy begins once all that was started before it, and may still read the slot, has ended.
    """

    def __init__(self, device: torch.device, fill: Callable[[int], None]) -> None:
        self._device, self._fill = device, fill
        self._held: list[int | None] = [None, None]
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)
            self._arrived = [torch.cuda.Event() for _ in self._held]

    def prefetch(self, number: int) -> None:
        """Begin to copy the weights of a number, unless they are there or on their way.

        Nothing that reads the slot's present weights may be started from now on.
        """
        slot = number % 2
        if self._held[slot] == number:
            return
        self._held[slot] = None
        if self._device.type == "cuda":
            self._copying.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._copying):
                self._fill(number)
                self._arrived[slot].record()
        else:
            self._fill(number)
        self._held[slot] = number

    def use(self, number: int) -> None:
        """Have the current stream wait until the weights of a number are in their slot."""
        self.prefetch(number)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).wait_event(self._arrived[number % 2])
