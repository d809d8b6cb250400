"""The demo's scenes: one for each of the eight behaviours, drawn at random.

A scene is its surroundings, drawn from the same ranges whatever happens in them, and one behaviour set into them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.demo.stage import (
    HALL,
    HELMETS,
    PATH_EDGE_METRES,
    PATH_FAR_Z,
    PATH_NEAR_Z,
    PRESS_SHOP,
    PRESS_Z,
    SECONDS_IN_VIEW,
    Camera,
    Clutter,
    Colour,
    Forklift,
    Light,
    Paint,
    Person,
    Scene,
)

CLUTTER_COLOURS: tuple[Colour, ...] = ((122, 98, 70), (92, 96, 104), (70, 86, 120), (140, 134, 120))

LATE_SHARE = 0.08  # of the scenes with a moving behaviour; each costs the first frame at one a second
EDGE_SHARE = 0.15  # of the walkers, at the path's very edge
FAR_SHARE, SCREENED_SHARE = 0.12, 0.15  # of the forklifts

# What a forklift of class 3 and of class 7 may carry: bins, and in how many stacks.
LOADS = {
    3: ((3, 1), (4, 2), (3, 2), (5, 2), (4, 1), (3, 1), (5, 1), (3, 2)),
    7: ((2, 1), (1, 1), (2, 2), (0, 1), (2, 1), (1, 2)),
}


def sample_scene(
    digit: int, rng: np.random.Generator, *, panel_open: bool | None = None, load: int | None = None
) -> Scene:
    """Draw one scene of the behaviour with that class digit (0 to 7) from `rng`.

    The panel says nothing about classes 1 and 5, where `panel_open` may fix it: an unvested worker at a closed press is
    as UNSAFE as at an open one, and with a vest an open panel is SAFE. `load` fixes which of its class's loads a
    forklift carries, counted round and round, so that a handful of clips show them all.
    """
    camera = camera_of(digit)
    surroundings = _surroundings(camera, rng)
    late = rng.uniform(0.2, 0.9) if rng.random() < LATE_SHARE else 0.0
    panel = bool(rng.integers(2)) if panel_open is None else panel_open
    person = forklift = None
    if digit in (0, 4):
        person = _walker(camera, on_path=digit == 4, rng=rng)
    elif digit in (1, 5):
        person = _worker_at_press(vest=digit == 5, rng=rng)
    elif digit in (3, 7):
        loads = LOADS[digit]
        bins, stacks = choose(rng, loads) if load is None else loads[load % len(loads)]
        forklift = _forklift(bins, stacks, rng)
    return Scene(
        camera=camera,
        panel_open={2: True, 6: False}.get(digit, panel),
        person=person,
        forklift=forklift,
        behaviour_from_seconds=0.0 if digit in (2, 6) else float(late),
        screen=_screen(forklift, rng) if forklift and rng.random() < SCREENED_SHARE else None,
        **surroundings,
    )


def camera_of(digit: int) -> Camera:
    """Return the camera that the behaviour with that class digit is seen by."""
    return HALL if digit in (0, 3, 4, 7) else PRESS_SHOP


def choose(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """Return one of `options`, each as likely as any other."""
    return options[int(rng.integers(len(options)))]


def _surroundings(camera: Camera, rng: np.random.Generator) -> dict[str, Any]:
    """Draw everything of a scene that isn't its behaviour."""
    return {
        "bystanders": _bystanders(camera, rng),
        "clutter": _clutter(camera, rng),
        "paint": _paint(rng),
        "light": _light(rng),
        "noise_sigma": choose(rng, (1.5, 2.5, 3.5, 4.5)),
        "noise_seed": int(rng.integers(2**31)),
    }


def _person(x: float, z: float, x_speed: float, z_speed: float, *, vest: bool, rng: np.random.Generator) -> Person:
    return Person(
        x=float(x),
        z=float(z),
        x_metres_per_second=float(x_speed),
        z_metres_per_second=float(z_speed),
        vest=vest,
        helmet=choose(rng, tuple(HELMETS)),
        stature=float(rng.uniform(0.93, 1.07)),
        phase_radians=float(rng.uniform(0, 2 * math.pi)),
    )


def _along_path(
    camera: Camera, beside_left: float, nearest: float, farthest: float, rng: np.random.Generator
) -> Person:
    """Somebody who walks along the path, `beside_left` metres right of its left edge, between two depths."""
    speed = rng.uniform(0.4, min(0.9, (farthest - nearest) / SECONDS_IN_VIEW))
    start = rng.uniform(nearest, farthest - speed * SECONDS_IN_VIEW)
    z, z_speed = (start, speed) if rng.integers(2) else (start + speed * SECONDS_IN_VIEW, -speed)
    slope = (camera.path_x[1] - camera.path_x[0]) / (PATH_FAR_Z - PATH_NEAR_Z)
    vest = bool(rng.integers(2))
    return _person(camera.path_left(z) + beside_left, z, slope * z_speed, z_speed, vest=vest, rng=rng)


def _walker(camera: Camera, *, on_path: bool, rng: np.random.Generator) -> Person:
    """Somebody who walks beside or inside the path's edges for as long as the clip lasts, some at the very edge."""
    at_edge = rng.random() < EDGE_SHARE
    if on_path:
        inside = rng.uniform(0.15, 0.25) if at_edge else rng.uniform(0.35, camera.path_width / 2)
        beside_left = inside if rng.integers(2) else camera.path_width - inside
    else:
        outside = PATH_EDGE_METRES + (rng.uniform(0.12, 0.25) if at_edge else rng.uniform(0.45, 1.9))
        beside_left = -outside if rng.integers(2) else camera.path_width + outside
    return _along_path(camera, beside_left, 4.3, 12.5, rng)


def _worker_at_press(*, vest: bool, rng: np.random.Generator) -> Person:
    """Somebody who stands at the press's board."""
    return _person(rng.uniform(-3.9, -1.6), PRESS_Z - rng.uniform(0.7, 1.6), 0, 0, vest=vest, rng=rng)


def _forklift(bins: int, stacks: int, rng: np.random.Generator) -> Forklift:
    """A forklift that crosses a part of the view, some far away."""
    z = rng.uniform(11.0, 14.0) if rng.random() < FAR_SHARE else rng.uniform(5.8, 10.0)
    reach = 0.58 * z + 0.2 - 1.8  # half of what the camera sees of the floor there, less the forklift's own length
    way = rng.uniform(0.8, 2 * reach)
    start = rng.uniform(-reach, reach - way)
    x, speed = (start, way / SECONDS_IN_VIEW) if rng.integers(2) else (start + way, -way / SECONDS_IN_VIEW)
    return Forklift(float(x), float(z), float(speed), bins, stacks)


def _screen(forklift: Forklift, rng: np.random.Generator) -> Clutter:
    """Crates that hide the forklift's lower half for a part of its way; the top of its load stays in view."""
    x, _ = forklift.at(rng.uniform(0.2, 0.8) * SECONDS_IN_VIEW)
    width, height = rng.uniform(0.9, 1.5), rng.uniform(0.4, 0.6)
    return Clutter("box", float(x), forklift.z - 0.9, float(width), float(height), choose(rng, CLUTTER_COLOURS))


def _bystanders(camera: Camera, rng: np.random.Generator) -> tuple[Person, ...]:
    """Operators in their seats, passers-by on the path, and in the hall whoever is behind its rail."""
    people = []
    for x, z in camera.seats:
        if rng.random() < 0.35:
            people.append(_seated(x, z, rng))
    if rng.random() < 0.3:
        beside_left = camera.path_width * rng.uniform(0.35, 0.65)
        people.append(_along_path(camera, beside_left, 6.5, min(13.0, camera.wall_z - 1), rng))
    if camera is HALL:
        people += [_behind_rail(rng) for _ in range(choose(rng, (0, 0, 0, 1, 1, 2)))]
    return tuple(people)


def _seated(x: float, z: float, rng: np.random.Generator) -> Person:
    person = _person(x + rng.uniform(-0.2, 0.2), z + rng.uniform(-0.2, 0.2), 0, 0, vest=rng.random() < 0.3, rng=rng)
    return Person(**{**vars(person), "seated": True})


def _behind_rail(rng: np.random.Generator) -> Person:
    speed = float(rng.uniform(0.3, 0.8)) * choose(rng, (-1, 1))
    start = rng.uniform(-6.0, 6.0) - speed * SECONDS_IN_VIEW / 2
    return _person(start, rng.uniform(16.2, 17.2), speed, 0, vest=bool(rng.integers(2)), rng=rng)


def _clutter(camera: Camera, rng: np.random.Generator) -> tuple[Clutter, ...]:
    """Boxes and bins along the back wall, clear of the path, and now and then a coil on the floor; farthest first."""
    things = []
    for z in rng.uniform(*camera.clutter_z, size=int(rng.integers(1, 5))):
        left, right = camera.path_left(z) - 1.6, camera.path_left(z) + camera.path_width + 0.4
        x = left - rng.uniform(0, 5) if rng.integers(2) else right + rng.uniform(0, 5)
        if rng.random() < 0.25:
            things.append(Clutter("bins", float(x), float(z), 1.0, 0.42 * float(rng.integers(1, 4)), (238, 118, 28)))
        else:
            width, height = rng.uniform(0.6, 1.4), rng.uniform(0.5, 1.5)
            things.append(Clutter("box", float(x), float(z), float(width), float(height), choose(rng, CLUTTER_COLOURS)))
    if rng.random() < 0.4:
        x, z = rng.uniform(-1.0, 3.5), rng.uniform(5.5, 9.5)
        things.append(Clutter("coil", float(x), float(z), float(rng.uniform(0.7, 1.1)), 0.3, (120, 124, 130)))
    return tuple(sorted(things, key=lambda thing: -thing.z))


def _paint(rng: np.random.Generator) -> Paint:
    spots = [
        (float(rng.uniform(-0.1, 1.1)), float(rng.uniform(PATH_NEAR_Z, PATH_FAR_Z)), float(rng.uniform(0.08, 0.35)))
        for _ in range(int(rng.integers(0, 30)))
    ]
    return Paint(fading=float(rng.uniform(0, 0.5)), worn_spots=tuple(spots))


def _light(rng: np.random.Generator) -> Light:
    brightness, warmth = rng.uniform(0.7, 1.15), rng.uniform(-0.06, 0.06)
    return Light(
        gains=(float(brightness * (1 + warmth)), float(brightness), float(brightness * (1 - warmth))),
        drift_per_second=float(rng.uniform(-0.012, 0.012)),
        flicker_radians=float(rng.uniform(0, 2 * math.pi)),
        sun_x=float(rng.uniform(-5.0, 4.0)) if rng.random() < 0.3 else None,
    )
