"""The colours that things are painted in, and the corners of what is painted as the camera sees them."""

from collections.abc import Sequence

from data_prep.demo.stage import Camera, Colour, Point

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
