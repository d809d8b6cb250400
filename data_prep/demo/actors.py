"""What moves in the plant: people and forklifts."""

import math

from PIL import ImageDraw

from data_prep.demo.paints import DARK, LIME, ORANGE, RED, SKIN, STEEL, UNIFORM, WHITE, WOOD, shade
from data_prep.demo.stage import HELMETS, Camera, Colour, Forklift, Person, Point


class _Standing:
    """Draws upright shapes, in metres from a point of the floor, at the size that the camera sees there."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, camera: Camera, at: Point, *, facing: int = 1, size: float = 1
    ) -> None:
        self._draw = draw
        self._u, self._v = camera.project(at[0], 0, at[1])
        self._scale = size * camera.pixels_per_metre(*at)
        self._facing = facing

    def _pixel(self, x: float, y: float) -> Point:
        return self._u + self._facing * x * self._scale, self._v - y * self._scale

    def rectangle(self, left: float, bottom: float, right: float, top: float, colour: Colour) -> None:
        corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
        self._draw.polygon([self._pixel(*corner) for corner in corners], fill=colour)

    def limb(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        pixels = max(2, round(width * self._scale))
        self._draw.line([self._pixel(*start), self._pixel(*end)], fill=colour, width=pixels)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, colour: Colour) -> None:
        (u, v), across, up = self._pixel(x, y), radius_x * self._scale, radius_y * self._scale
        self._draw.ellipse([u - across, v - up, u + across, v + up], fill=colour)


def draw_person(draw: ImageDraw.ImageDraw, camera: Camera, person: Person, seconds: float) -> None:
    """Draw somebody where and as they are `seconds` after the clip's start."""
    figure = _Standing(draw, camera, person.at(seconds), size=person.stature)
    swing = math.sin(person.phase_radians + 2 * math.pi * (0.9 if person.walks else 0.25) * seconds)
    figure.ellipse(0, 0, 0.34, 0.09, shade(camera.floor, 0.6))
    if person.seated:
        _draw_chair_and_legs(figure)
        lower = -0.38
    else:
        stride = 0.16 * swing if person.walks else 0.13
        figure.limb((-0.08, 0.85), (-0.08 - stride, 0.04), 0.17, UNIFORM)
        figure.limb((0.08, 0.85), (0.08 + stride, 0.04), 0.17, UNIFORM)
        lower = 0.0
    _draw_arms(figure, person.walks, swing, lower)
    _draw_torso(figure, person.vest, lower)
    figure.ellipse(0, 1.60 + lower, 0.11, 0.14, SKIN)
    figure.ellipse(0, 1.69 + lower, 0.14, 0.09, HELMETS[person.helmet])


def _draw_chair_and_legs(figure: _Standing) -> None:
    figure.rectangle(-0.26, 0.0, -0.20, 0.42, DARK)
    figure.rectangle(0.20, 0.0, 0.26, 0.42, DARK)
    figure.rectangle(-0.28, 0.38, 0.28, 0.46, WOOD)
    figure.limb((-0.12, 0.44), (-0.14, 0.03), 0.16, UNIFORM)
    figure.limb((0.12, 0.44), (0.14, 0.03), 0.16, UNIFORM)


def _draw_arms(figure: _Standing, walking: bool, swing: float, lower: float) -> None:
    """Arms that swing in walking, and reach out and back in working."""
    reach = 0.12 * swing if walking else 0.20 + 0.06 * swing
    hand_y = (0.85 if walking else 1.15) + lower
    for side in (-1, 1):
        figure.limb((side * 0.22, 1.38 + lower), (side * 0.27 + reach, hand_y), 0.11, UNIFORM)
        figure.ellipse(side * 0.27 + reach, hand_y, 0.06, 0.06, SKIN)


def _draw_torso(figure: _Standing, vest: bool, lower: float) -> None:
    """A dark jacket with red shoulders and a white band, or the lime vest with its grey stripes over it."""
    figure.rectangle(-0.22, 0.80 + lower, 0.22, 1.45 + lower, UNIFORM)
    if vest:
        figure.rectangle(-0.23, 0.84 + lower, 0.23, 1.46 + lower, LIME)
        figure.rectangle(-0.23, 0.98 + lower, 0.23, 1.05 + lower, WHITE)
        figure.rectangle(-0.04, 1.25 + lower, 0.04, 1.46 + lower, UNIFORM)
    else:
        figure.rectangle(-0.22, 1.33 + lower, 0.22, 1.45 + lower, RED)
        figure.rectangle(-0.22, 1.12 + lower, 0.22, 1.18 + lower, WHITE)


def draw_forklift(draw: ImageDraw.ImageDraw, camera: Camera, forklift: Forklift, seconds: float) -> None:
    """Draw a forklift, its driver and its load where they are `seconds` after the clip's start."""
    facing = 1 if forklift.x_metres_per_second > 0 else -1
    truck = _Standing(draw, camera, forklift.at(seconds), facing=facing)
    truck.ellipse(0.2, 0, 1.7, 0.16, shade(camera.floor, 0.6))
    truck.rectangle(-1.1, 0.25, 0.45, 0.95, (214, 168, 36))
    truck.rectangle(-1.1, 0.95, -0.55, 1.15, DARK)
    for left in (-0.95, 0.30):
        truck.rectangle(left, 0.95, left + 0.09, 2.05, DARK)
    truck.rectangle(-1.0, 2.0, 0.45, 2.1, DARK)
    truck.ellipse(-0.25, 1.5, 0.16, 0.2, SKIN)
    truck.rectangle(-0.48, 0.95, -0.05, 1.36, UNIFORM)
    for wheel in (-0.75, 0.25):
        truck.ellipse(wheel, 0.26, 0.26, 0.26, DARK)
    truck.rectangle(0.52, 0.1, 0.66, 2.35, STEEL)
    truck.rectangle(0.6, 0.12, 1.85, 0.2, DARK)
    _draw_load(truck, forklift)


def _draw_load(truck: _Standing, forklift: Forklift) -> None:
    """The bins on the fork, the lowest level first; two stacks stand one behind the other."""
    width = 1.0 if forklift.stacks == 1 else 0.54
    for index in range(forklift.bins):
        level, stack = divmod(index, forklift.stacks)
        left, bottom = 0.72 + stack * (width + 0.04), 0.22 + 0.46 * level
        truck.rectangle(left, bottom, left + width, bottom + 0.42, ORANGE)
        truck.rectangle(left, bottom + 0.33, left + width, bottom + 0.42, shade(ORANGE, 0.7))
