"""What is asked of the people: how many they are, where they walk, what they wear."""

from data_prep.demo.stage import RAIL_Z, Scene
from tiny_base.answers import COUNTS, Topic, clothes_of, yes_or_no
from tiny_base.sightings import metres_beside_path, people_in_view, walkers_in_view


def _people_count(scene: Scene, seconds: float) -> str:
    return COUNTS[len(people_in_view(scene, seconds))]


def _vest_count(scene: Scene, seconds: float) -> str:
    return COUNTS[sum(person.vest for person in people_in_view(scene, seconds))]


def _seated_count(scene: Scene, seconds: float) -> str:
    return COUNTS[sum(person.seated for person in people_in_view(scene, seconds))]


def _on_path_count(scene: Scene, seconds: float) -> str:
    return COUNTS[sum(metres_beside_path(scene, person, seconds) == 0 for person in walkers_in_view(scene, seconds))]


def _walks_beside_path(scene: Scene, seconds: float) -> str:
    return yes_or_no(any(metres_beside_path(scene, person, seconds) for person in walkers_in_view(scene, seconds)))


def _side_of_path(scene: Scene, seconds: float) -> str:
    beside = [
        metres for person in walkers_in_view(scene, seconds) if (metres := metres_beside_path(scene, person, seconds))
    ]
    return "nobody" if not beside else "left" if beside[0] < 0 else "right"


def _walker_place(scene: Scene, seconds: float) -> str | None:
    walkers = walkers_in_view(scene, seconds)
    if len(walkers) != 1:
        return None if walkers else "nobody"
    return "beside the path" if metres_beside_path(scene, walkers[0], seconds) else "on the path"


def _walker_clothes(scene: Scene, seconds: float) -> str | None:
    walkers = walkers_in_view(scene, seconds)
    if len(walkers) != 1:
        return None if walkers else "nobody"
    return clothes_of(walkers[0])


def _helmet(scene: Scene, seconds: float) -> str | None:
    person = scene.person_at(seconds)
    return person.helmet if person and person.at(seconds)[1] < 9 else None


def _behind_rail_count(scene: Scene, seconds: float) -> str:
    return COUNTS[sum(person.at(seconds)[1] > RAIL_Z for person in people_in_view(scene, seconds))]


PEOPLE_TOPICS = (
    Topic("people", ("How many people are there?", "Count the people.", "How many persons do you see?"), _people_count),
    Topic("vests", ("How many people wear a lime vest?", "Count the lime vests.", "How many vests?"), _vest_count),
    Topic("seated", ("How many people are seated?", "How many sit?", "Count those on chairs."), _seated_count),
    Topic("on the path", ("How many people walk on the green path?", "Count those on the path."), _on_path_count),
    Topic(
        "walks beside the path",
        (
            "Does somebody walk beside the path?",
            "Is a walker off the green path?",
            "Has anyone on foot left the green path?",
        ),
        _walks_beside_path,
    ),
    Topic(
        "side of the path",
        ("On which side of the path does somebody walk?", "Left or right of the path?"),
        _side_of_path,
    ),
    Topic(
        "walker", ("Where does the person walk?", "Where is the walker?", "Where do you see a walker?"), _walker_place
    ),
    Topic("walker's clothes", ("What does the walker wear?", "How is the walker dressed?"), _walker_clothes),
    Topic("helmet", ("What colour is the helmet?", "Which helmet does the walker or worker wear?"), _helmet),
    Topic(
        "behind the rail", ("How many people are behind the rail?", "Count those behind the rail."), _behind_rail_count
    ),
)
