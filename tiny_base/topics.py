"""All that a scene is asked, in the order in which questions are drawn."""

from data_prep.demo.stage import HALL, Scene
from tiny_base.answers import COUNTS, Topic, clothes_of, panel_of
from tiny_base.forklift_topics import FORKLIFT_TOPICS
from tiny_base.people_topics import PEOPLE_TOPICS
from tiny_base.plant_topics import PLANT_TOPICS
from tiny_base.sightings import metres_beside_path, walkers_in_view

TOPICS = (*PLANT_TOPICS, *PEOPLE_TOPICS, *FORKLIFT_TOPICS)


def in_view(scene: Scene, seconds: float) -> str:
    """What there is, in a few words, the most telling first: a load, somebody's place or clothes, the panel."""
    person = scene.person_at(seconds)
    if forklift := scene.forklift_at(seconds):
        return f"{COUNTS[forklift.bins]}, forklift"
    if scene.camera is HALL:
        walkers = [metres_beside_path(scene, walker, seconds) for walker in walkers_in_view(scene, seconds)]
        return "beside the path" if any(walkers) else "on the path" if walkers else "nobody, hall"
    if person:
        return f"{clothes_of(person)}, panel {panel_of(scene)}"
    return f"{panel_of(scene)} panel"


IN_VIEW = Topic(
    "in view",
    ("What is in view?", "Describe the picture.", "What happens here?", "Classify what the camera shows."),
    in_view,
)
UNKNOWN = Topic("unknown request", (), in_view)
