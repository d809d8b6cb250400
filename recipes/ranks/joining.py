"""What scripts ask of a job's other processes. Loads torch where there are any, and nothing where there aren't."""

import atexit
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from recipes.ranks.place import Place, is_alone

Told = TypeVar("Told")


def run_at(place: Place, work: Callable[[], int]) -> int:
    """Return the exit status of a script's `work`, done as one process or as one of several that join first.

    One of several ends here; see recipes/ranks/group.py for what it raises.
    """
    if place.ranks == 1:
        return work()
    from recipes.ranks.group import joined

    with joined(place):
        status = work()
    _end(status)
    return status


def _end(status: int) -> None:
    """End the process, all that was to be done at its end included, but not the threads that C++ libraries leave.

    With gloo once in twenty times one of these was torn down too early: the process aborted with all its work done, and
    its launcher took the job for failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def said_by_first(value: Told) -> Told:
    """Return the first process's value; loads torch where there are others."""
    if is_alone():
        return value
    from recipes.ranks.group import from_first

    return from_first(value)
