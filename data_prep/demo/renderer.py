"""Drawing the demo's scenes: one scene and a time to one RGB picture."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from data_prep.demo.scenes import (
    HALL,
    HEIGHT,
    HELMETS,
    PANEL_FRONT,
    PATH_EDGE_METRES,
    PATH_FAR_Z,
    PATH_NEAR_Z,
    PRESS_FRONT,
    PRESS_SHOP,
    PRESS_Z,
    RAIL_Z,
    WIDTH,
    Camera,
    Clutter,
    Colour,
    Forklift,
    Light,
    Paint,
    Person,
    Point,
    Scene,
)

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
WOOD: Colour = (128, 102, 74)

NOISE_FIELDS = 6


class Renderer:
    """Draws the pictures of one scene. What stands still is drawn once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._background = _background(scene)
        self._rng = np.random.default_rng(scene.noise_seed)

    def frame(self, seconds: float) -> Image.Image:
        """Return the scene `seconds` after the clip's start as an RGB image of 640 by 360 pixels.

        The sensor's noise is drawn anew at each call, so a clip's frames are asked for once each, in order.
        """
        return Image.frombytes("RGB", (WIDTH, HEIGHT), self.pixels(seconds).tobytes(), "raw", "RGBX")

    def pixels(self, seconds: float) -> np.ndarray:
        """Return what `frame` shows as uint8 of shape (360, 640, 4), the last channel without meaning.

        That is how Pillow holds an RGB image, and takes half the time of packing three bytes a pixel.
        """
        image = self._background.copy()
        draw = ImageDraw.Draw(image)
        for paint in _farthest_first(self.scene, seconds):
            paint(draw)
        lit = image.point(_light_table(self.scene.light, seconds)).tobytes("raw", "RGBX")
        noise = _noise_fields(self.scene.noise_sigma)[int(self._rng.integers(NOISE_FIELDS))]
        right, down = int(self._rng.integers(WIDTH)), int(self._rng.integers(HEIGHT))
        noisy = noise.added_to(np.frombuffer(lit, np.uint8).reshape(HEIGHT, -1), right=right, down=down)
        return noisy.reshape(HEIGHT, WIDTH, 4)


def _farthest_first(scene: Scene, seconds: float) -> list[Callable[[ImageDraw.ImageDraw], None]]:
    """Return what draws each thing that moves, or that may stand before one, in the order of its depth."""
    camera, things = scene.camera, []
    counted = scene.person_at(seconds)
    for person in (*scene.bystanders, *([counted] if counted else [])):
        things.append((person.at(seconds)[1], _drawing(_draw_person, camera, person, seconds)))
    if forklift := scene.forklift_at(seconds):
        things.append((forklift.z, _drawing(_draw_forklift, camera, forklift, seconds)))
    if scene.screen:
        things.append((scene.screen.z, _drawing(_draw_box, camera, scene.screen, 1)))
    if camera is HALL:
        things.append((RAIL_Z, _drawing(_draw_rail, camera)))
    return [paint for _, paint in sorted(things, key=lambda thing: -thing[0])]


def _drawing(function: Callable[..., None], *arguments: object) -> Callable[[ImageDraw.ImageDraw], None]:
    return lambda draw: function(draw, *arguments)


def _light_table(light: Light, seconds: float) -> list[int]:
    wave = 1 + 0.02 * math.sin(2 * math.pi * 0.4 * seconds + light.flicker_radians) + light.drift_per_second * seconds
    levels = np.multiply.outer(np.multiply(light.gains, wave), np.arange(256))
    return np.minimum(255, levels.round()).astype(np.uint8).ravel().tolist()


class NoiseField:
    """Grey sensor noise of a picture's size, from -128 to 127, held so that adding it takes bytes alone.

    No pixel between `least` and `most` leaves [0, 255] by the noise, so their sum may be taken modulo 256.
    """

    def __init__(self, noise: np.ndarray) -> None:
        of_channels = np.repeat(noise, 4, axis=1)
        self._least = np.maximum(0, -of_channels).astype(np.uint8)
        self._most = np.minimum(255, 255 - of_channels).astype(np.uint8)
        self._noise = (of_channels % 256).astype(np.uint8)

    def added_to(self, pixels: np.ndarray, *, right: int, down: int) -> np.ndarray:
        """Return a picture, of shape (height, 4 width), with the noise moved by so many pixels and wrapped around.

        As one long row of bytes all of it is moved at once, three times as fast as row by row. What wraps around the
        right edge then comes from one row too high, and is done again.
        """
        noisy = np.empty_like(pixels)
        turn = pixels.shape[1] * down + 4 * right
        for here, there in _moved(pixels.size, turn):
            self._add(pixels.ravel(), noisy.ravel(), here, there)
        for here, there in _moved(len(pixels), down):
            self._add(pixels, noisy, (here, slice(4 * right)), (there, slice(pixels.shape[1] - 4 * right, None)))
        return noisy

    def _add(self, pixels: np.ndarray, noisy: np.ndarray, here: Any, there: Any) -> None:
        least, most, noise = (each.reshape(pixels.shape) for each in (self._least, self._most, self._noise))
        part = noisy[here]
        np.maximum(pixels[here], least[there], out=part)  # with minimum, a sixth of the time of np.clip
        np.minimum(part, most[there], out=part)
        part += noise[there]


def _moved(length: int, by: int) -> list[tuple[slice, slice]]:
    """Return the two stretches of an axis that a move wraps into: where each comes to lie, and where it lay."""
    return [(slice(by, length), slice(length - by)), (slice(by), slice(length - by, length))]


@lru_cache
def _noise_fields(sigma: float) -> list[NoiseField]:
    """Return a few fields of noise; moved at random, they cost a tenth of fresh noise a frame."""
    rng = np.random.default_rng(round(10 * sigma))
    fields = np.clip(rng.normal(128, sigma, size=(NOISE_FIELDS, HEIGHT, WIDTH)), 0, 255).astype(np.int16)
    return [NoiseField(field - 128) for field in fields]


def _background(scene: Scene) -> Image.Image:
    """Everything that stands still, drawn at twice the size and shrunk, which smooths its edges."""
    image = Image.new("RGB", (WIDTH * 2, HEIGHT * 2), scene.camera.floor)
    draw = ImageDraw.Draw(image)
    _draw_path(draw, scene.camera, scene.paint)
    if scene.light.sun_x is not None:
        image = _sunlit(image, scene.camera, scene.light.sun_x)
        draw = ImageDraw.Draw(image)
    _draw_wall(draw, scene.camera)
    for thing in scene.clutter:
        {"box": _draw_box, "bins": _draw_bins_on_floor, "coil": _draw_coil}[thing.kind](draw, scene.camera, thing, 2)
    if scene.camera is PRESS_SHOP:
        _draw_press(draw, scene.camera, scene.panel_open)
    for x, z in scene.camera.seats:
        _draw_desk(draw, scene.camera, x, z)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


def _scaled(camera: Camera, points: Sequence[tuple[float, float, float]], size: int) -> list[Point]:
    return [(size * u, size * v) for u, v in (camera.project(*point) for point in points)]


def _doubled(camera: Camera, points: Sequence[tuple[float, float, float]]) -> list[Point]:
    return _scaled(camera, points, 2)


def _upright(left: float, bottom: float, right: float, top: float, z: float) -> list[tuple[float, float, float]]:
    return [(left, bottom, z), (right, bottom, z), (right, top, z), (left, top, z)]


def _blend(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def _sunlit(image: Image.Image, camera: Camera, left: float) -> Image.Image:
    """Brighten a slanting stretch of the floor, as through a high window."""
    mask = Image.new("L", image.size, 0)
    corners = [(left, 0.0, 5.0), (left + 1.5, 0.0, 5.0), (left + 3.0, 0.0, 12.0), (left + 1.0, 0.0, 12.0)]
    ImageDraw.Draw(mask).polygon(_doubled(camera, corners), fill=255)
    return Image.composite(image.point([min(255, round(value * 1.25)) for value in range(256)] * 3), image, mask)


def _draw_wall(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    draw.polygon(_doubled(camera, _upright(-40, 0, 40, 12, camera.wall_z)), fill=(150, 152, 150))
    draw.polygon(_doubled(camera, _upright(-40, 0, 40, 0.25, camera.wall_z)), fill=(84, 86, 88))
    for x in range(-18, 19, 4):
        draw.polygon(_doubled(camera, _upright(x, 0, x + 0.5, 12, camera.wall_z)), fill=(112, 116, 118))


def _draw_path(draw: ImageDraw.ImageDraw, camera: Camera, paint: Paint) -> None:
    """The green path and its yellow edges, faded, and rubbed off in spots."""
    width, edge = camera.path_width, PATH_EDGE_METRES
    for colour, left, right in ((YELLOW, -edge, width + edge), (GREEN, 0.0, width)):
        corners = [(camera.path_left(z) + side, 0.0, z) for z, side in _strip_corners(left, right)]
        draw.polygon(_doubled(camera, corners), fill=_blend(colour, camera.floor, paint.fading))
    for across, z, radius in paint.worn_spots:
        x = camera.path_left(z) + across * width
        u, v = camera.project(x, 0, z)
        wide, high = radius * camera.pixels_per_metre(x, z), 0.5 * radius * camera.pixels_per_metre(x, z)
        box = [2 * (u - wide), 2 * (v - high), 2 * (u + wide), 2 * (v + high)]
        draw.ellipse(box, fill=_blend(GREEN, camera.floor, 0.8))


def _strip_corners(left: float, right: float) -> list[Point]:
    return [(PATH_NEAR_Z, left), (PATH_FAR_Z, left), (PATH_FAR_Z, right), (PATH_NEAR_Z, right)]


def _draw_box(draw: ImageDraw.ImageDraw, camera: Camera, box: Clutter, size: int) -> None:
    left, right, depth = box.x - box.width / 2, box.x + box.width / 2, 0.8
    top = [(left, box.height, box.z), (right, box.height, box.z)]
    top += [(right, box.height, box.z + depth), (left, box.height, box.z + depth)]
    draw.polygon(_scaled(camera, top, size), fill=_shade(box.colour, 1.25))
    draw.polygon(_scaled(camera, _upright(left, 0, right, box.height, box.z), size), fill=box.colour)


def _draw_bins_on_floor(draw: ImageDraw.ImageDraw, camera: Camera, bins: Clutter, size: int) -> None:
    _draw_box(draw, camera, bins, size)
    for level in range(1, round(bins.height / 0.42) + 1):
        rim = _upright(bins.x - bins.width / 2, 0.42 * level - 0.09, bins.x + bins.width / 2, 0.42 * level, bins.z)
        draw.polygon(_scaled(camera, rim, size), fill=_shade(ORANGE, 0.7))


def _draw_coil(draw: ImageDraw.ImageDraw, camera: Camera, coil: Clutter, size: int) -> None:
    """A coil of steel strip that lies on its side: a short tube with a dark hole."""
    (u, v), scale = camera.project(coil.x, 0, coil.z), size * camera.pixels_per_metre(coil.x, coil.z)
    u, v, wide, high = size * u, size * v, coil.width / 2 * scale, coil.width / 4 * scale
    for rise, colour in ((0.0, 0.7), (0.5 * coil.height, 0.85), (coil.height, 1.2)):
        centre = v - rise * scale
        draw.ellipse([u - wide, centre - high, u + wide, centre + high], fill=_shade(coil.colour, colour))
    centre = v - coil.height * scale
    draw.ellipse([u - 0.45 * wide, centre - 0.45 * high, u + 0.45 * wide, centre + 0.45 * high], fill=DARK)


def _draw_desk(draw: ImageDraw.ImageDraw, camera: Camera, x: float, z: float) -> None:
    """An operator's desk, which stands behind the seat as the camera sees it."""
    top = [(x - 0.6, 0.75, z + 0.35), (x + 0.6, 0.75, z + 0.35), (x + 0.6, 0.75, z + 1.0), (x - 0.6, 0.75, z + 1.0)]
    draw.polygon(_doubled(camera, _upright(x - 0.6, 0, x + 0.6, 0.75, z + 0.35)), fill=_shade(WOOD, 0.6))
    draw.polygon(_doubled(camera, top), fill=WOOD)
    draw.polygon(_doubled(camera, _upright(x - 0.25, 0.75, x + 0.25, 1.1, z + 0.8)), fill=(44, 50, 60))


def _draw_rail(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    """A waist-high rail on either side of the path."""
    for polygon, colour in _rail(camera):
        draw.polygon(polygon, fill=colour)


@lru_cache
def _rail(camera: Camera) -> list[tuple[list[Point], Colour]]:
    left, parts = camera.path_left(RAIL_Z), []
    for start, end in ((-14.0, left - 0.2), (left + camera.path_width + 0.2, 14.0)):
        parts += [(_upright(start, bottom, end, bottom + 0.09, RAIL_Z), (206, 176, 40)) for bottom in (0.5, 1.0)]
        posts = np.arange(start, end + 0.01, (end - start) / round((end - start) / 1.5))
        parts += [(_upright(post, 0, post + 0.07, 1.1, RAIL_Z), (160, 136, 40)) for post in posts]
    return [(_scaled(camera, corners, 1), colour) for corners, colour in parts]


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


def _draw_person(draw: ImageDraw.ImageDraw, camera: Camera, person: Person, seconds: float) -> None:
    figure = _Standing(draw, camera, person.at(seconds), size=person.stature)
    swing = math.sin(person.phase_radians + 2 * math.pi * (0.9 if person.walks else 0.25) * seconds)
    figure.ellipse(0, 0, 0.34, 0.09, _shade(camera.floor, 0.6))
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


def _draw_forklift(draw: ImageDraw.ImageDraw, camera: Camera, forklift: Forklift, seconds: float) -> None:
    facing = 1 if forklift.x_metres_per_second > 0 else -1
    truck = _Standing(draw, camera, forklift.at(seconds), facing=facing)
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
    truck.rectangle(0.6, 0.12, 1.85, 0.2, DARK)
    _draw_load(truck, forklift)


def _draw_load(truck: _Standing, forklift: Forklift) -> None:
    """The bins on the fork, the lowest level first; two stacks stand one behind the other."""
    width = 1.0 if forklift.stacks == 1 else 0.54
    for index in range(forklift.bins):
        level, stack = divmod(index, forklift.stacks)
        left, bottom = 0.72 + stack * (width + 0.04), 0.22 + 0.46 * level
        truck.rectangle(left, bottom, left + width, bottom + 0.42, ORANGE)
        truck.rectangle(left, bottom + 0.33, left + width, bottom + 0.42, _shade(ORANGE, 0.7))
