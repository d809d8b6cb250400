"""The colours that things are painted in, and where the corners of what is painted lie in the picture."""

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


def scaled(camera: Camera, points: Sequence[tuple[float, float, float]], size: int) -> list[Point]:
    """Return the pixels of points (x, y, z), in a picture `size` times as wide and high as the camera's."""
    return [(size * u, size * v) for u, v in (camera.project(*point) for point in points)]


def doubled(camera: Camera, points: Sequence[tuple[float, float, float]]) -> list[Point]:
    """Return the pixels of points (x, y, z) in a picture of twice that size, as the background is drawn."""
    return scaled(camera, points, 2)


def upright(left: float, bottom: float, right: float, top: float, z: float) -> list[tuple[float, float, float]]:
    """Return the corners (x, y, z), in metres, of an upright rectangle across the view at depth `z`."""
    return [(left, bottom, z), (right, bottom, z), (right, top, z), (left, top, z)]


def blend(colour: Colour, other: Colour, share: float) -> Colour:
    """Return a colour with that share, 0 to 1, of another."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Return a colour darker, or from 1 on brighter, by a factor."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue
