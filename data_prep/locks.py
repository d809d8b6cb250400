"""Folders that one process at a time works in."""

import contextlib
import errno
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from data_prep.errors import InputError
from data_prep.files import UNSUPPORTED

HELD_SUFFIX = ".held"  # of the file that stands for a lock


@contextlib.contextmanager
def hold_lock(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file, which the system releases however this process ends.

    Where the file system has no locks, a file beside it that says which process holds it stands for one. Raises
    InputError with the message `refusal` where another process holds it.
    """
    with path.open("a") as file:
        by_name = contextlib.nullcontext() if _lock(file, path, refusal) else _hold_by_name(path, refusal)
        if not _is_at(file, path):  # whoever held it has moved it since, with the folder that it was for
            raise InputError(refusal)
        with by_name:
            yield


def _is_at(file: IO[str], path: Path) -> bool:
    """Say whether an open file still lies at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[str], path: Path, refusal: str) -> bool:
    """Lock an open file; return False where its file system can't."""
    import fcntl  # Windows has none: run_script must get as far as to say so

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(refusal) from None
    except OSError as error:
        if error.errno in (errno.ENOLCK, *UNSUPPORTED):
            return False
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


@contextlib.contextmanager
def _hold_by_name(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock by a file that is there or not, which every file system can; a killed process leaves it.

    What a process of this machine left that runs no more is taken over; of other machines nobody here knows.
    """
    held = path.with_name(path.name + HELD_SUFFIX)
    try:
        _claim(held)
    except FileExistsError:
        holder = held.read_text(encoding="utf-8")
        if not _is_gone(holder):
            raise InputError(
                f"{refusal}. This file system has no locks: {held} says that {holder.strip() or 'another process'} is "
                "at work; where none is, remove it"
            ) from None
        print(f"{held}: {holder.strip()} runs no more, going on in its place", file=sys.stderr)
        held.unlink()
        _claim(held)
    print(f"{path.parent}: this file system has no locks; meanwhile {held.name} stands for one", file=sys.stderr)
    try:
        yield
    finally:
        held.unlink(missing_ok=True)


def _claim(held: Path) -> None:
    with held.open("x", encoding="utf-8") as file:
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")


def _is_gone(holder: str) -> bool:
    """Say whether a holder was a process of this machine, and is none any more, or this one: numbers are used again."""
    words = re.fullmatch(r"process (\d+) on (.*)\n", holder)
    if words is None or words[2] != socket.gethostname():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(words[1]) == os.getpid()
