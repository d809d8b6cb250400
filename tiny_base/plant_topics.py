"""What is asked of the plant itself: the room, its light and floor, the press and who works at it."""

from data_prep.demo.stage import HALL, Scene
from tiny_base.answers import Topic, clothes_of, panel_of, yes_or_no
from tiny_base.sightings import is_in_picture


def _place(scene: Scene, seconds: float) -> str:
    return "hall" if scene.camera is HALL else "press shop"


def _light(scene: Scene, seconds: float) -> str | None:
    brightness = scene.light.gains[1]
    return "dim" if brightness < 0.85 else "bright" if brightness > 1.0 else None


def _paint(scene: Scene, seconds: float) -> str | None:
    return "fresh" if scene.paint.fading < 0.12 else "faded" if scene.paint.fading > 0.35 else None


def _sun(scene: Scene, seconds: float) -> str | None:
    if scene.light.sun_x is None:
        return "no"
    return "yes" if -4.0 < scene.light.sun_x < 3.0 else None


def _coil(scene: Scene, seconds: float) -> str:
    return yes_or_no(any(thing.kind == "coil" for thing in scene.clutter))


def _bins_by_wall(scene: Scene, seconds: float) -> str:
    return yes_or_no(any(thing.kind == "bins" and is_in_picture(scene, thing.x, thing.z) for thing in scene.clutter))


def _panel(scene: Scene, seconds: float) -> str:
    return panel_of(scene)


def _panel_is_open(scene: Scene, seconds: float) -> str:
    return yes_or_no(scene.camera is not HALL and scene.panel_open)


def _someone_at_press(scene: Scene, seconds: float) -> str:
    return yes_or_no(scene.camera is not HALL and scene.person_at(seconds) is not None)


def _clothes_at_press(scene: Scene, seconds: float) -> str:
    worker = scene.person_at(seconds)
    if scene.camera is HALL or worker is None:
        return "nobody"
    return clothes_of(worker)


PLANT_TOPICS = (
    Topic("place", ("Which part of the plant is this?", "Where is the camera?", "What room is seen?"), _place),
    Topic("light", ("How is the light?", "Is it bright or dim?", "What is the light like in this picture?"), _light),
    Topic("paint", ("How is the paint of the green path?", "Is the path's paint fresh or faded?"), _paint),
    Topic("sun", ("Does the sun shine on the floor?", "Is there a sunlit stretch of floor?"), _sun),
    Topic("coil", ("Is there a coil on the floor?", "Does a steel coil lie about?", "A coil: yes or no?"), _coil),
    Topic("bins by the wall", ("Do orange bins stand by the wall?", "Are bins on the floor?"), _bins_by_wall),
    Topic(
        "panel",
        ("How is the panel of the press?", "Is the panel open or closed?", "State of the press panel?"),
        _panel,
    ),
    Topic(
        "panel is open",
        ("Is the panel open?", "Does the press show a dark cavity?", "Has somebody opened the cover?"),
        _panel_is_open,
    ),
    Topic(
        "someone at the press",
        ("Does somebody stand at the press?", "Is a worker at the press board?", "Is anyone working at the press?"),
        _someone_at_press,
    ),
    Topic(
        "clothes at the press",
        ("What does the worker at the press wear?", "Who stands at the press?", "Clothes of the worker at the board?"),
        _clothes_at_press,
    ),
)
