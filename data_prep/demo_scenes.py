"""The drawn scenes of the demo: two fixed cameras over a plant, and one scene for each of the eight behaviours.

Lengths are in metres on the plant's floor: x to the right, y up, z away from the camera, whose foot is the origin.
Only the behaviour itself depends on the class; camera, light, clutter and clothes are drawn from the same ranges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

WIDTH, HEIGHT = 640, 360
CAMERA_HEIGHT_METRES = 4.0

Colour = tuple[int, int, int]
Point = tuple[float, float]

GREEN: Colour = (46, 132, 74)
YELLOW: Colour = (232, 200, 40)
LIME: Colour = (196, 240, 40)
ORANGE: Colour = (238, 118, 28)
UNIFORM: Colour = (38, 42, 58)
RED: Colour = (176, 38, 40)
WHITE: Colour = (226, 226, 222)
SKIN: Colour = (206, 160, 128)
DARK: Colour = (24, 24, 26)
CAVITY: Colour = (10, 9, 9)
STEEL: Colour = (120, 130, 136)
MACHINE: Colour = (86, 108, 116)
CLUTTER_COLOURS: tuple[Colour, ...] = ((122, 98, 70), (92, 96, 104), (70, 86, 120), (140, 134, 120))
HELMET_COLOURS: tuple[Colour, ...] = (WHITE, (60, 96, 176), (226, 190, 50))


@dataclass(frozen=True)
class Camera:
    """A fixed pinhole camera four metres up: where it looks, and where the path and the press lie in its view."""

    pitch_degrees: float
    yaw_degrees: float
    focal_pixels: float
    path_x: tuple[float, float]  # the path's left edge: x at the near and at the far end
    path_width: float
    floor: Colour
    wall_z: float

    def project(self, x: float, y: float, z: float) -> Point:
        """Return the pixel (u, v) at which a point of the plant is seen."""
        pitch, yaw = math.radians(self.pitch_degrees), math.radians(self.yaw_degrees)
        side = x * math.cos(yaw) - z * math.sin(yaw)
        ahead = x * math.sin(yaw) + z * math.cos(yaw)
        below = CAMERA_HEIGHT_METRES - y
        depth = ahead * math.cos(pitch) + below * math.sin(pitch)
        down = below * math.cos(pitch) - ahead * math.sin(pitch)
        return WIDTH / 2 + self.focal_pixels * side / depth, HEIGHT / 2 + self.focal_pixels * down / depth

    def pixels_per_metre(self, x: float, z: float) -> float:
        """Return the height in pixels of an upright metre that stands on the floor at (x, z)."""
        return self.project(x, 0, z)[1] - self.project(x, 1, z)[1]

    def path_left(self, z: float) -> float:
        """Return the x of the path's left edge at depth `z`."""
        near, far = self.path_x
        return near + (far - near) * (z - PATH_NEAR_Z) / (PATH_FAR_Z - PATH_NEAR_Z)


PATH_NEAR_Z, PATH_FAR_Z = 2.6, 18.0
PATH_EDGE_METRES = 0.14

HALL = Camera(24, 0, 500, path_x=(-1.6, 0.6), path_width=1.6, floor=(128, 126, 122), wall_z=19)
PRESS_SHOP = Camera(22, -7, 520, path_x=(2.2, 1.8), path_width=1.3, floor=(112, 116, 120), wall_z=13)

# The press of PRESS_SHOP: its front, as (left x, bottom y, right x, top y) at one depth, and the panel in it.
PRESS_Z = 8.0
PRESS_FRONT = (-5.4, 0.0, -0.6, 3.3)
PANEL_FRONT = (-4.5, 1.2, -2.5, 2.9)


@dataclass(frozen=True)
class Person:
    """Somebody on foot: where they are at the clip's start, how fast they walk, and what they wear."""

    x: float
    z: float
    x_metres_per_second: float
    z_metres_per_second: float
    vest: bool
    helmet: Colour
    phase_radians: float


@dataclass(frozen=True)
class Forklift:
    """A forklift seen from the side that crosses the hall with orange bins stacked on its fork."""

    x: float
    z: float
    x_metres_per_second: float
    bins: int


@dataclass(frozen=True)
class Clutter:
    """A box on the floor that has nothing to do with any behaviour."""

    x: float
    z: float
    width: float
    height: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """Everything that one clip shows. `noise_seed` makes its sensor noise and wear."""

    camera: Camera
    panel_open: bool
    person: Person | None
    forklift: Forklift | None
    clutter: tuple[Clutter, ...]
    brightness: float
    flicker_radians: float
    noise_seed: int


def draw_scene(digit: int, rng: np.random.Generator) -> Scene:
    """Draw one scene of the behaviour with that class digit (0 to 7) from `rng`.

    The panel says nothing about classes 1 and 5: an unvested worker at a closed press is as UNSAFE as at an open one,
    and with a vest an open panel is SAFE.
    """
    camera = HALL if digit in (0, 3, 4, 7) else PRESS_SHOP
    panel_open = {2: True, 6: False}.get(digit, bool(rng.integers(2)))
    person = forklift = None
    if digit in (0, 4):
        person = _walker(camera, on_path=digit == 4, rng=rng)
    elif digit in (1, 5):
        person = _worker_at_press(vest=digit == 5, rng=rng)
    elif digit in (3, 7):
        forklift = _forklift(int(rng.integers(3, 6) if digit == 3 else rng.integers(1, 3)), rng)
    return Scene(
        camera=camera,
        panel_open=panel_open,
        person=person,
        forklift=forklift,
        clutter=_clutter(camera, rng),
        brightness=float(rng.uniform(0.78, 1.15)),
        flicker_radians=float(rng.uniform(0, 2 * math.pi)),
        noise_seed=int(rng.integers(2**31)),
    )


def _choose(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _walker(camera: Camera, *, on_path: bool, rng: np.random.Generator) -> Person:
    """Somebody who walks beside or inside the path's edges, along it, for as long as the clip lasts."""
    away = bool(rng.integers(2))
    z, z_speed = (
        (rng.uniform(4.2, 5.2), rng.uniform(0.5, 0.9)) if away else (rng.uniform(8.5, 9.5), -rng.uniform(0.5, 0.9))
    )
    if on_path:
        beside_left_edge = camera.path_width * rng.uniform(0.35, 0.65)
    elif rng.integers(2):
        beside_left_edge = -rng.uniform(0.6, 1.6)
    else:
        beside_left_edge = camera.path_width + rng.uniform(0.6, 1.6)
    slope = (camera.path_x[1] - camera.path_x[0]) / (PATH_FAR_Z - PATH_NEAR_Z)
    return Person(
        x=float(camera.path_left(z) + beside_left_edge),
        z=float(z),
        x_metres_per_second=float(slope * z_speed),
        z_metres_per_second=float(z_speed),
        vest=bool(rng.integers(2)),
        helmet=_choose(rng, HELMET_COLOURS),
        phase_radians=float(rng.uniform(0, 2 * math.pi)),
    )


def _worker_at_press(*, vest: bool, rng: np.random.Generator) -> Person:
    return Person(
        x=float(rng.uniform(-3.9, -1.6)),
        z=PRESS_Z - float(rng.uniform(0.7, 1.6)),
        x_metres_per_second=0.0,
        z_metres_per_second=0.0,
        vest=vest,
        helmet=_choose(rng, HELMET_COLOURS),
        phase_radians=float(rng.uniform(0, 2 * math.pi)),
    )


def _forklift(bins: int, rng: np.random.Generator) -> Forklift:
    direction = 1 if rng.integers(2) else -1
    return Forklift(
        x=float(-direction * rng.uniform(1.2, 2.2)),
        z=float(rng.uniform(6.0, 8.5)),
        x_metres_per_second=float(direction * rng.uniform(0.4, 0.65)),
        bins=bins,
    )


def _clutter(camera: Camera, rng: np.random.Generator) -> tuple[Clutter, ...]:
    """Up to four boxes along the back wall, clear of the path, farthest first."""
    boxes = []
    for z in sorted(rng.uniform(camera.wall_z - 4.0, camera.wall_z - 0.8, size=int(rng.integers(1, 5))), reverse=True):
        left, right = camera.path_left(z) - 1.6, camera.path_left(z) + camera.path_width + 0.4
        x = left - rng.uniform(0, 4) if rng.integers(2) else right + rng.uniform(0, 4)
        width, height = rng.uniform(0.6, 1.4), rng.uniform(0.5, 1.5)
        boxes.append(Clutter(float(x), float(z), float(width), float(height), _choose(rng, CLUTTER_COLOURS)))
    return tuple(boxes)


class Renderer:
    """Draws the frames of one scene. What stands still is drawn once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._background = _background(scene)
        self._noise = _noise_fields(scene.noise_seed)

    def frame(self, seconds: float) -> Image.Image:
        """Return the scene `seconds` after the clip's start as an RGB image of 640 by 360 pixels."""
        image = self._background.copy()
        draw = ImageDraw.Draw(image)
        if self.scene.forklift:
            _draw_forklift(draw, self.scene.camera, self.scene.forklift, seconds)
        if self.scene.person:
            _draw_person(draw, self.scene.camera, self.scene.person, seconds)
        lit = image.point(_light_table(self.scene, seconds))
        noise = self._noise[round(seconds * 1000) % len(self._noise)]
        return ImageChops.add(lit, noise, scale=1, offset=-128)


def _light_table(scene: Scene, seconds: float) -> list[int]:
    gain = scene.brightness * (1 + 0.02 * math.sin(2 * math.pi * 0.4 * seconds + scene.flicker_radians))
    return [min(255, round(value * gain)) for value in range(256)] * 3


def _noise_fields(seed: int, count: int = 7, sigma: float = 2.5) -> list[Image.Image]:
    """Grey sensor noise around 128; a handful of fields, shown in turn, costs a tenth of fresh noise a frame."""
    rng = np.random.default_rng(seed)
    fields = np.clip(rng.normal(128, sigma, size=(count, HEIGHT, WIDTH)), 0, 255).astype(np.uint8)
    return [Image.merge("RGB", [Image.fromarray(field)] * 3) for field in fields]


def _background(scene: Scene) -> Image.Image:
    """Everything that stands still, drawn at twice the size and shrunk, which smooths its edges."""
    image = Image.new("RGB", (WIDTH * 2, HEIGHT * 2), scene.camera.floor)
    draw = ImageDraw.Draw(image)
    _draw_wall(draw, scene.camera)
    _draw_path(draw, scene.camera)
    for box in scene.clutter:
        _draw_box(draw, scene.camera, box)
    if scene.camera == PRESS_SHOP:
        _draw_press(draw, scene.camera, scene.panel_open)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


def _doubled(camera: Camera, points: Sequence[tuple[float, float, float]]) -> list[Point]:
    return [(2 * u, 2 * v) for u, v in (camera.project(*point) for point in points)]


def _upright(left: float, bottom: float, right: float, top: float, z: float) -> list[tuple[float, float, float]]:
    return [(left, bottom, z), (right, bottom, z), (right, top, z), (left, top, z)]


def _draw_wall(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    draw.polygon(_doubled(camera, _upright(-40, 0, 40, 12, camera.wall_z)), fill=(150, 152, 150))
    draw.polygon(_doubled(camera, _upright(-40, 0, 40, 0.25, camera.wall_z)), fill=(84, 86, 88))
    for x in range(-18, 19, 4):
        draw.polygon(_doubled(camera, _upright(x, 0, x + 0.5, 12, camera.wall_z)), fill=(112, 116, 118))


def _draw_path(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    width, edge = camera.path_width, PATH_EDGE_METRES
    for colour, left, right in ((YELLOW, -edge, width + edge), (GREEN, 0.0, width)):
        corners = [(camera.path_left(z) + side, 0.0, z) for z, side in _strip_corners(left, right)]
        draw.polygon(_doubled(camera, corners), fill=colour)


def _strip_corners(left: float, right: float) -> list[Point]:
    return [(PATH_NEAR_Z, left), (PATH_FAR_Z, left), (PATH_FAR_Z, right), (PATH_NEAR_Z, right)]


def _draw_box(draw: ImageDraw.ImageDraw, camera: Camera, box: Clutter) -> None:
    left, right, depth = box.x - box.width / 2, box.x + box.width / 2, 0.8
    top = [(left, box.height, box.z), (right, box.height, box.z)]
    top += [(right, box.height, box.z + depth), (left, box.height, box.z + depth)]
    draw.polygon(_doubled(camera, top), fill=_shade(box.colour, 1.25))
    draw.polygon(_doubled(camera, _upright(left, 0, right, box.height, box.z)), fill=box.colour)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def _draw_press(draw: ImageDraw.ImageDraw, camera: Camera, panel_open: bool) -> None:
    left, bottom, right, top = PRESS_FRONT
    side = [(right, bottom, PRESS_Z), (right, bottom, PRESS_Z + 2), (right, top, PRESS_Z + 2), (right, top, PRESS_Z)]
    draw.polygon(_doubled(camera, side), fill=_shade(MACHINE, 0.7))
    draw.polygon(_doubled(camera, _upright(*PRESS_FRONT, PRESS_Z)), fill=MACHINE)
    draw.polygon(_doubled(camera, _upright(left, 0.75, right, 0.95, PRESS_Z)), fill=_shade(MACHINE, 1.3))
    (_draw_open_panel if panel_open else _draw_closed_panel)(draw, camera)


def _draw_open_panel(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    """A dark cavity with a glint of cables, its cover swung out on the left."""
    left, bottom, right, top = PANEL_FRONT
    draw.polygon(_doubled(camera, _upright(left, bottom, right, top, PRESS_Z)), fill=CAVITY)
    for x in (left + 0.6, left + 1.1, left + 1.5):
        draw.polygon(_doubled(camera, _upright(x, bottom, x + 0.06, top - 0.3, PRESS_Z)), fill=(52, 36, 30))
    hinge, reach = left, (left - 0.5, PRESS_Z - 1.0)
    cover = [(hinge, bottom, PRESS_Z), (reach[0], bottom, reach[1]), (reach[0], top, reach[1]), (hinge, top, PRESS_Z)]
    draw.polygon(_doubled(camera, cover), fill=_shade(STEEL, 1.2))


def _draw_closed_panel(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    left, bottom, right, top = PANEL_FRONT
    draw.polygon(_doubled(camera, _upright(left, bottom, right, top, PRESS_Z)), fill=_shade(STEEL, 0.8))
    inner = _upright(left + 0.07, bottom + 0.07, right - 0.07, top - 0.07, PRESS_Z)
    draw.polygon(_doubled(camera, inner), fill=_shade(STEEL, 1.2))
    draw.polygon(_doubled(camera, _upright(right - 0.3, 1.9, right - 0.2, 2.3, PRESS_Z)), fill=DARK)


class _Standing:
    """Draws upright shapes, in metres from a point of the floor, at the size that the camera sees there."""

    def __init__(self, draw: ImageDraw.ImageDraw, camera: Camera, x: float, z: float, facing: int = 1) -> None:
        self._draw = draw
        self._u, self._v = camera.project(x, 0, z)
        self._scale = camera.pixels_per_metre(x, z)
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


def _draw_person(draw: ImageDraw.ImageDraw, camera: Camera, person: Person, seconds: float) -> None:
    x = person.x + person.x_metres_per_second * seconds
    z = person.z + person.z_metres_per_second * seconds
    figure = _Standing(draw, camera, x, z)
    walking = person.z_metres_per_second != 0
    swing = math.sin(person.phase_radians + 2 * math.pi * (0.9 if walking else 0.25) * seconds)
    stride = 0.16 * swing if walking else 0.13
    figure.ellipse(0, 0, 0.34, 0.09, _shade(camera.floor, 0.6))
    figure.limb((-0.08, 0.85), (-0.08 - stride, 0.04), 0.17, UNIFORM)
    figure.limb((0.08, 0.85), (0.08 + stride, 0.04), 0.17, UNIFORM)
    _draw_arms(figure, walking, swing)
    _draw_torso(figure, person.vest)
    figure.ellipse(0, 1.60, 0.11, 0.14, SKIN)
    figure.ellipse(0, 1.69, 0.14, 0.09, person.helmet)


def _draw_arms(figure: _Standing, walking: bool, swing: float) -> None:
    """Arms that swing in walking, and reach for the press and back in working."""
    reach = 0.12 * swing if walking else 0.20 + 0.06 * swing
    hand_y = 0.85 if walking else 1.15
    for side in (-1, 1):
        figure.limb((side * 0.22, 1.38), (side * 0.27 + reach, hand_y), 0.11, UNIFORM)
        figure.ellipse(side * 0.27 + reach, hand_y, 0.06, 0.06, SKIN)


def _draw_torso(figure: _Standing, vest: bool) -> None:
    """A dark jacket with red shoulders and a white band, or the lime vest with its grey stripes over it."""
    figure.rectangle(-0.22, 0.80, 0.22, 1.45, UNIFORM)
    if vest:
        figure.rectangle(-0.23, 0.84, 0.23, 1.46, LIME)
        figure.rectangle(-0.23, 0.98, 0.23, 1.05, WHITE)
        figure.rectangle(-0.04, 1.25, 0.04, 1.46, UNIFORM)
    else:
        figure.rectangle(-0.22, 1.33, 0.22, 1.45, RED)
        figure.rectangle(-0.22, 1.12, 0.22, 1.18, WHITE)


def _draw_forklift(draw: ImageDraw.ImageDraw, camera: Camera, forklift: Forklift, seconds: float) -> None:
    x = forklift.x + forklift.x_metres_per_second * seconds
    facing = 1 if forklift.x_metres_per_second > 0 else -1
    truck = _Standing(draw, camera, x, forklift.z, facing)
    truck.ellipse(0.2, 0, 1.7, 0.16, _shade(camera.floor, 0.6))
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
    truck.rectangle(0.6, 0.12, 1.75, 0.2, DARK)
    _draw_bins(truck, forklift.bins)


def _draw_bins(truck: _Standing, bins: int) -> None:
    for level in range(bins):
        bottom = 0.22 + 0.46 * level
        truck.rectangle(0.72, bottom, 1.72, bottom + 0.42, ORANGE)
        truck.rectangle(0.72, bottom + 0.33, 1.72, bottom + 0.42, _shade(ORANGE, 0.7))
