"""A run that is asked to end saves first: signals noted, passed on by the launcher, kept from worker processes."""

import ctypes
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>


class StopRequest:
    """SIGTERM or Ctrl-C, noted instead of obeyed; a context manager that puts the old handlers back.

    `at` says in words when it is obeyed; `received` is the signal that came, None for none. A second Ctrl-C interrupts
    at once.
    """

    def __init__(self, at: str = "at the end of this update") -> None:
        self._at = at
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in _STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(f"{self.received.name}: saving a checkpoint {self._at}", file=sys.stderr, flush=True)

    @property
    def exit_status(self) -> int:
        """The status that a shell gives a process which the signal ended."""
        return 128 + self.received if self.received else 0


def follow_launcher() -> None:
    """Have the kernel send SIGTERM here when the process that started this one ends.

    `accelerate launch` doesn't pass signals on: without this, terminating it would leave training running unseen. Not
    for a run that was started by hand, which may well outlive its shell.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
