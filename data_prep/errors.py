"""The errors that a user is meant to see, and how a script shows them."""

import os
import sys
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave is wrong. The message names the thing, what was allowed, and what to do."""


class VideoError(Exception):
    """A clip of which nothing can be had. The message is the reason, without the clip's path."""


def one_line(error: InputError) -> str:
    """Return the error's message as one line, without the traceback that a DataLoader's worker wraps it in."""
    message = str(error)
    if message.startswith("Caught InputError in DataLoader worker"):
        message = message.rpartition("InputError: ")[2]
    return " ".join(message.split())


def run_script(main: Callable[[list[str]], int], *, reads_stdin: bool = False) -> None:
    """Run a script's `main` on the command line's arguments and exit with its status.

    An `InputError` becomes one line on stderr and exit status 2, Ctrl-C exit status 130, a reader of stdout that went
    away 1; anything else keeps its traceback, because it is a fault of the program. Unless the script `reads_stdin`,
    that is empty: a library that asks a question gets no answer. So is one that was closed, or the next file to be
    opened would pass for it. Windows itself, whose files can't be locked as everything here does, is refused.
    """
    if sys.platform == "win32":
        print("error: Windows itself can't run this; use WSL 2 or Docker Desktop, see README.md", file=sys.stderr)
        sys.exit(2)
    if not (reads_stdin and _is_open(0)):
        empty_stdin()
    try:
        status = main(sys.argv[1:])
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        status = 2
    except BrokenPipeError:  # whoever read the answers has gone; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; finished work is kept", file=sys.stderr)
        status = 130
    sys.exit(status)


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
