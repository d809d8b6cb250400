"""Answers about a scene: the topics that give them, and the words that they are made of."""

from collections.abc import Callable
from dataclasses import dataclass

from data_prep.demo.stage import HALL, Person, Scene

COUNTS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")

ANSWER_WORDS = (
    "yes", "no", "nobody", "hall", "press shop", "dim", "bright", "fresh", "faded", "open", "closed", "no panel",
    "lime vest", "dark jacket", "left", "right", "on the path", "beside the path", "white", "blue", "yellow",
    "no forklift", "near", "far", "forklift", "walker", "vest", "jacket",
)  # fmt: skip


@dataclass(frozen=True)
class Topic:
    """One thing that can be asked of a scene: its phrasings, and its answer at a time, None where it has none."""

    name: str
    phrasings: tuple[str, ...]
    answer: Callable[[Scene, float], str | None]


def yes_or_no(truth: bool) -> str:
    """Answer a question of fact."""
    return "yes" if truth else "no"


def clothes_of(person: Person) -> str:
    """Name what somebody wears."""
    return "lime vest" if person.vest else "dark jacket"


def panel_of(scene: Scene) -> str:
    """Name the state of the press's panel."""
    return "no panel" if scene.camera is HALL else "open" if scene.panel_open else "closed"
