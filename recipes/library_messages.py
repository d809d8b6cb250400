"""Messages of our libraries that tell a user nothing, named one by one so that no other is lost."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import IO

from huggingface_hub import constants

from data_prep.errors import empty_stdin


def silence_known_messages() -> None:
    """Keep back what can't be acted on, and every library from sending usage figures."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # for processes started from this one, and for Gradio
    constants.HF_HUB_DISABLE_TELEMETRY = True  # what huggingface_hub, once imported, goes by, and TRL through it
    # Advises a CPU kernel that would be fetched from the Hub and run; only what is pinned runs here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # Where the home can't be written to, it tells at length that it does without its cache of fonts.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # PEFT 0.21.2 asks transformers 5.23 under the old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    # The best checkpoint is looked for in the run's folder, not at the path where that lay once.
    logging.getLogger("transformers.trainer").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "recorded in the resumed state does not exist anymore" not in record.getMessage()


def stay_offline() -> None:
    """Have no library ask the Hub for anything from here on, however early it was imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # for processes started from this one
    constants.HF_HUB_OFFLINE = True  # what huggingface_hub, once imported, goes by


def reach_this_machine_directly(host: str) -> None:
    """Have no library go through a proxy to a server on this machine, which listens at `host`.

    Gradio asks its own page whether it is there, and a proxy is another machine, whose localhost is another page.
    """
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    excepted = ",".join(filter(None, [listed, "localhost", "127.0.0.1", "::1", host]))
    os.environ.update(no_proxy=excepted, NO_PROXY=excepted)


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


@contextmanager
def stream_alone_on_stdin() -> Iterator[IO[bytes]]:
    """Give a file of what comes on stdin, which is empty meanwhile for all other code: none of it can take a line."""
    kept = os.dup(0)
    empty_stdin()
    try:
        with open(kept, "rb", closefd=False) as lines:
            yield lines
    finally:
        os.dup2(kept, 0)
        os.close(kept)
