"""What a script and its libraries say: one line of a mistake, results alone on stdout, no chatter."""

import getpass
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO

from data_prep.disk.disk_errors import named, told
from data_prep.errors import InputError, one_line

_STDIN, _STDOUT, _STDERR = range(3)  # the descriptors, which libraries in C go by, too


def run_script(main: Callable[[list[str]], int], *, reads_stdin: bool = False) -> None:
    """Run a script's `main` on the command line's arguments and exit with its status.

    An `InputError`, and whatever a disk or a file system refuses, becomes one line on stderr and exit status 2, Ctrl-C
    exit status 130, a reader of stdout that went away 1; anything else keeps its traceback, because it is a fault of
    the program. Unless the script `reads_stdin`, that is empty: a library that asks a question gets no answer. So is
    one that was closed, or the next file to be opened would pass for it. What stdout's encoding lacks is escaped, as
    on stderr. Windows itself, whose files can't be locked as everything here does, is refused.
    """
    if sys.platform == "win32":
        _complain("Windows itself can't run this; use WSL 2 or Docker Desktop, see README.md")
        sys.exit(2)
    _set_up(reads_stdin=reads_stdin)
    try:
        status = main(sys.argv[1:])
        with named(Path("/dev/stdout")):
            print(end="", flush=True)
    except InputError as error:
        _complain(one_line(error))
        status = 2
    except BrokenPipeError:  # whoever read the answers has gone
        status = 1
    except KeyboardInterrupt:
        print("interrupted; finished work is kept", file=sys.stderr)
        status = 130
    except Exception as error:
        line = told(error)
        if line is None:
            raise
        _complain(f"{line}; then run the same command again, finished work is kept")
        status = 2
    _flush_or_drop_stdout()
    sys.exit(status)


def _set_up(*, reads_stdin: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not (reads_stdin and _is_open(_STDIN)):
        empty_stdin()
    _have_a_name()
    threading.excepthook = _say_of_thread


def _complain(line: str) -> None:
    print(f"error: {line}\n", end="", file=sys.stderr)  # in one piece: workers that end write there, too


def _have_a_name() -> None:
    """Name a user whom the system knows by a number alone, as a container's may be: torch asks for the name."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _say_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Show what ended a thread, a library's, as run_script shows what ends the script."""
    line = told(failed.exc_value) if failed.exc_value else None
    if line is None:
        threading.__excepthook__(failed)
    else:
        _complain(line)


def _flush_or_drop_stdout() -> None:
    """Write what stdout holds, or let go of it where that fails: Python would complain once more at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, _STDOUT)
        os.close(nothing)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def empty_stdin() -> None:
    """Put an empty file in stdin's place, for libraries in C, too."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    if nothing != _STDIN:
        os.close(nothing)


@contextmanager
def stream_alone_on_stdin() -> Iterator[IO[bytes]]:
    """Give a file of what comes on stdin, which is empty meanwhile for all other code: none of it can take a line."""
    kept = os.dup(_STDIN)
    empty_stdin()
    try:
        with open(kept, "rb", closefd=False) as lines:
            yield lines
    finally:
        os.dup2(kept, _STDIN)
        os.close(kept)


@contextmanager
def results_alone_on_stdout() -> Iterator[IO[str]]:
    """Give a file that writes to stdout, and meanwhile send to stderr all else that any code writes to stdout.

    That holds for libraries in C, too, which know nothing of sys.stdout.
    """
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        with open(kept, "w", encoding="utf-8", closefd=False) as results, redirect_stdout(sys.stderr):
            yield results
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)


def quiet_without_terminal() -> None:
    """Switch off the progress bars of `datasets` where stderr is no terminal."""
    from datasets import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()


def silence_known_messages() -> None:
    """Keep back what can't be acted on, and every library from sending usage figures."""
    from huggingface_hub import constants

    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # for processes started from this one, and for Gradio
    constants.HF_HUB_DISABLE_TELEMETRY = True  # what huggingface_hub, once imported, goes by, and TRL through it
    # Advises a CPU kernel that would be fetched from the Hub and run; only what is pinned runs here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # Where the home can't be written to, it tells at length that it does without its cache of fonts.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # PEFT 0.21.2 asks transformers 5.23 under the old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    # Each process of a job takes itself to be alone, see recipes/ranks/place.py, and is right.
    logging.getLogger("transformers.training_args").addFilter(_is_news)
    # The best checkpoint is looked for in the run's folder, not at the path where that lay once.
    logging.getLogger("transformers.trainer").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    known = "recorded in the resumed state does not exist anymore", "torch.distributed process group is initialized"
    return not any(each in record.getMessage() for each in known)


def stay_offline() -> None:
    """Have no library ask the Hub for anything from here on, however early it was imported."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"  # for processes started from this one
    constants.HF_HUB_OFFLINE = True  # what huggingface_hub, once imported, goes by


def reach_this_machine_directly(host: str) -> None:
    """Have no library go through a proxy to a server on this machine, which listens at `host`.

    Gradio asks its own page whether it is there, and a proxy is another machine, whose localhost is another page.
    """
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    excepted = ",".join(filter(None, [listed, "localhost", "127.0.0.1", "::1", host]))
    os.environ.update(no_proxy=excepted, NO_PROXY=excepted)
