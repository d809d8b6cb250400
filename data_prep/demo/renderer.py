"""Drawing the demo's scenes: one scene and a time to one RGB picture."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from data_prep.demo.actors import draw_forklift, draw_person
from data_prep.demo.noise import NOISE_FIELDS, noise_fields
from data_prep.demo.paints import doubled
from data_prep.demo.props import (
    draw_bins_on_floor,
    draw_box,
    draw_coil,
    draw_desk,
    draw_path,
    draw_press,
    draw_rail,
    draw_wall,
)
from data_prep.demo.stage import HALL, HEIGHT, PRESS_SHOP, RAIL_Z, WIDTH, Camera, Light, Scene


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
        noise = noise_fields(self.scene.noise_sigma)[int(self._rng.integers(NOISE_FIELDS))]
        right, down = int(self._rng.integers(WIDTH)), int(self._rng.integers(HEIGHT))
        noisy = noise.added_to(np.frombuffer(lit, np.uint8).reshape(HEIGHT, -1), right=right, down=down)
        return noisy.reshape(HEIGHT, WIDTH, 4)


def _farthest_first(scene: Scene, seconds: float) -> list[Callable[[ImageDraw.ImageDraw], None]]:
    """Return what draws each thing that moves, or that may stand before one, in the order of its depth."""
    camera, things = scene.camera, []
    counted = scene.person_at(seconds)
    for person in (*scene.bystanders, *([counted] if counted else [])):
        things.append((person.at(seconds)[1], _drawing(draw_person, camera, person, seconds)))
    if forklift := scene.forklift_at(seconds):
        things.append((forklift.z, _drawing(draw_forklift, camera, forklift, seconds)))
    if scene.screen:
        things.append((scene.screen.z, _drawing(draw_box, camera, scene.screen, 1)))
    if camera is HALL:
        things.append((RAIL_Z, _drawing(draw_rail, camera)))
    return [paint for _, paint in sorted(things, key=lambda thing: -thing[0])]


def _drawing(function: Callable[..., None], *arguments: object) -> Callable[[ImageDraw.ImageDraw], None]:
    return lambda draw: function(draw, *arguments)


def _light_table(light: Light, seconds: float) -> list[int]:
    wave = 1 + 0.02 * math.sin(2 * math.pi * 0.4 * seconds + light.flicker_radians) + light.drift_per_second * seconds
    levels = np.multiply.outer(np.multiply(light.gains, wave), np.arange(256))
    return np.minimum(255, levels.round()).astype(np.uint8).ravel().tolist()


def _background(scene: Scene) -> Image.Image:
    """Everything that stands still, drawn at twice the size and shrunk, which smooths its edges."""
    image = Image.new("RGB", (WIDTH * 2, HEIGHT * 2), scene.camera.floor)
    draw = ImageDraw.Draw(image)
    draw_path(draw, scene.camera, scene.paint)
    if scene.light.sun_x is not None:
        image = _sunlit(image, scene.camera, scene.light.sun_x)
        draw = ImageDraw.Draw(image)
    draw_wall(draw, scene.camera)
    for thing in scene.clutter:
        {"box": draw_box, "bins": draw_bins_on_floor, "coil": draw_coil}[thing.kind](draw, scene.camera, thing, 2)
    if scene.camera is PRESS_SHOP:
        draw_press(draw, scene.camera, scene.panel_open)
    for x, z in scene.camera.seats:
        draw_desk(draw, scene.camera, x, z)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


def _sunlit(image: Image.Image, camera: Camera, left: float) -> Image.Image:
    """Brighten a slanting stretch of the floor, as through a high window."""
    mask = Image.new("L", image.size, 0)
    corners = [(left, 0.0, 5.0), (left + 1.5, 0.0, 5.0), (left + 3.0, 0.0, 12.0), (left + 1.0, 0.0, 12.0)]
    ImageDraw.Draw(mask).polygon(doubled(camera, corners), fill=255)
    return Image.composite(image.point([min(255, round(value * 1.25)) for value in range(256)] * 3), image, mask)
