"""A run that is asked to end saves first: SIGTERM becomes a checkpoint and a stop at the end of the step."""

import ctypes
import signal
import sys
from types import FrameType

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXIT_STATUS = 128 + signal.SIGTERM
_PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>


class StopOnSigterm(TrainerCallback):
    """After SIGTERM, finish the step, have the trainer save a checkpoint, and stop training."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, _signum: int, _frame: FrameType | None) -> None:
        self.received = True
        print("SIGTERM: saving a checkpoint at the end of this step, then stopping", file=sys.stderr, flush=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        """Ask for a checkpoint and a stop once the signal has come."""
        if self.received:
            control.should_save = True
            control.should_training_stop = True
        return control


def follow_launcher() -> None:
    """Have the kernel send SIGTERM here when `accelerate launch`, which started this process, ends.

    The launcher doesn't pass signals on: without this, terminating it would leave training running unseen. To be called
    under the launcher alone; a run started by hand may well outlive its shell.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
