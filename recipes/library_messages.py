"""Messages of our libraries that tell a user nothing, named one by one so that no other is lost."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import IO


def silence_known_messages() -> None:
    """Keep back what can't be acted on, and TRL from sending usage figures. To be called before TRL is imported."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Advises a CPU kernel that would be fetched from the Hub and run; only what is pinned runs here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # PEFT 0.21.2 asks transformers 5.23 under the old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    # The best checkpoint is looked for in the run's folder, not at the path where that lay once.
    logging.getLogger("transformers.trainer").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "recorded in the resumed state does not exist anymore" not in record.getMessage()


@contextmanager
def results_alone_on_stdout() -> Iterator[IO[str]]:
    """Give a file that writes to stdout, and meanwhile send to stderr all else that any code writes to stdout.

    That holds for libraries in C, too, which know nothing of sys.stdout.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(kept, "w", encoding="utf-8", closefd=False) as results, redirect_stdout(sys.stderr):
            yield results
    finally:
        os.dup2(kept, 1)
        os.close(kept)
