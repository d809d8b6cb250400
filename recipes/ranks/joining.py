"""What scripts ask of a job's other processes. Loads torch where there are any, and nothing where there aren't."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from recipes.ranks.place import Place, is_alone

Told = TypeVar("Told")


@contextmanager
def joining(place: Place) -> Iterator[None]:
    """Join the other processes of a job, where there are any; see recipes/ranks/group.py, which loads torch."""
    if place.ranks == 1:
        yield
        return
    from recipes.ranks.group import joined

    with joined(place):
        yield


def said_by_first(value: Told) -> Told:
    """Return the first process's value; loads torch where there are others."""
    if is_alone():
        return value
    from recipes.ranks.group import from_first

    return from_first(value)
