"""The errors that a user is meant to see, and how a script shows them."""

import getpass
import io
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from data_prep.disk.disk_errors import named, told

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(Exception):
    """Something the user gave is wrong. The message names the thing, what was allowed, and what to do."""


class VideoError(Exception):
    """A clip of which nothing can be had. The message is the reason, without the clip's path."""


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that whatever a file is called, it is told in one line."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(error: InputError) -> str:
    """Return the error's message as one line, without the traceback that a DataLoader's worker wraps it in."""
    message = str(error)
    if message.startswith("Caught InputError in DataLoader worker"):
        message = message.rpartition("InputError: ")[2]
    return printable(" ".join(message.split()))


def run_script(main: Callable[[list[str]], int], *, reads_stdin: bool = False) -> None:
    """Run a script's `main` on the command line's arguments and exit with its status.

    An `InputError`, and whatever a disk or a file system refuses, becomes one line on stderr and exit status 2, Ctrl-C
    exit status 130, a reader of stdout that went away 1; anything else keeps its traceback, because it is a fault of
    the program. Unless the script `reads_stdin`, that is empty: a library that asks a question gets no answer. So is
    one that was closed, or the next file to be opened would pass for it. What stdout's encoding lacks is escaped, as
    on stderr. Windows itself, whose files can't be locked as everything here does, is refused.
    """
    if sys.platform == "win32":
        print("error: Windows itself can't run this; use WSL 2 or Docker Desktop, see README.md", file=sys.stderr)
        sys.exit(2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not (reads_stdin and _is_open(0)):
        empty_stdin()
    _have_a_name()
    threading.excepthook = _say_of_thread
    try:
        status = main(sys.argv[1:])
        with named(Path("/dev/stdout")):
            print(end="", flush=True)
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
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
        print(f"error: {line}; then run the same command again, finished work is kept", file=sys.stderr)
        status = 2
    _flush_or_drop_stdout()
    sys.exit(status)


def _have_a_name() -> None:
    """Name a user whom the system knows by a number alone, as a container's may be: torch asks for the name."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _flush_or_drop_stdout() -> None:
    """Write what stdout holds, or let go of it where that fails: Python would complain once more at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)


def _say_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Show what ended a thread, a library's, as run_script shows what ends the script."""
    line = told(failed.exc_value) if failed.exc_value else None
    if line is None:
        threading.__excepthook__(failed)
    else:
        print(f"error: {line}", file=sys.stderr)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def empty_stdin() -> None:
    """Put an empty file in stdin's place, for libraries in C, too."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    if nothing != 0:
        os.close(nothing)
