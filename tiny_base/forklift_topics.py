"""What is asked of the forklift: its load, its way and how far it is."""

from data_prep.demo.stage import Scene
from tiny_base.answers import COUNTS, Topic, yes_or_no


def _forklift(scene: Scene, seconds: float) -> str:
    return yes_or_no(scene.forklift_at(seconds) is not None)


def _bins(scene: Scene, seconds: float) -> str:
    forklift = scene.forklift_at(seconds)
    return "no forklift" if forklift is None else COUNTS[forklift.bins]


def _stacks(scene: Scene, seconds: float) -> str | None:
    forklift = scene.forklift_at(seconds)
    if forklift is None:
        return "no forklift"
    return None if forklift.bins < 2 else COUNTS[forklift.stacks]


def _heading(scene: Scene, seconds: float) -> str:
    forklift = scene.forklift_at(seconds)
    return "no forklift" if forklift is None else "right" if forklift.x_metres_per_second > 0 else "left"


def _distance(scene: Scene, seconds: float) -> str | None:
    forklift = scene.forklift_at(seconds)
    if forklift is None:
        return "no forklift"
    return "near" if forklift.z < 9.5 else "far" if forklift.z > 10.5 else None


FORKLIFT_TOPICS = (
    Topic("forklift", ("Is there a forklift?", "Do you see a forklift?", "A forklift: yes or no?"), _forklift),
    Topic(
        "bins",
        ("How many bins does the forklift carry?", "Count the bins on the fork.", "How many orange bins are carried?"),
        _bins,
    ),
    Topic("stacks", ("In how many stacks are the bins?", "How many stacks does the forklift carry?"), _stacks),
    Topic("heading", ("Which way does the forklift drive?", "Does the forklift face left or right?"), _heading),
    Topic("distance", ("Is the forklift near or far?", "How far away is the forklift?"), _distance),
)
