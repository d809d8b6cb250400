"""What stands in the plant: its walls, path and machines, and what lies on its floor."""

from functools import lru_cache

import numpy as np
from PIL import ImageDraw

from data_prep.demo.paints import (
    CAVITY,
    DARK,
    GREEN,
    MACHINE,
    ORANGE,
    STEEL,
    WOOD,
    YELLOW,
    blend,
    doubled,
    scaled,
    shade,
    upright,
)
from data_prep.demo.stage import (
    PANEL_FRONT,
    PATH_EDGE_METRES,
    PATH_FAR_Z,
    PATH_NEAR_Z,
    PRESS_FRONT,
    PRESS_Z,
    RAIL_Z,
    Camera,
    Clutter,
    Colour,
    Paint,
    Point,
)


def draw_wall(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    """Draw the back wall, its plinth and its pillars."""
    draw.polygon(doubled(camera, upright(-40, 0, 40, 12, camera.wall_z)), fill=(150, 152, 150))
    draw.polygon(doubled(camera, upright(-40, 0, 40, 0.25, camera.wall_z)), fill=(84, 86, 88))
    for x in range(-18, 19, 4):
        draw.polygon(doubled(camera, upright(x, 0, x + 0.5, 12, camera.wall_z)), fill=(112, 116, 118))


def draw_path(draw: ImageDraw.ImageDraw, camera: Camera, paint: Paint) -> None:
    """Draw the green path and its yellow edges, faded, and rubbed off in spots."""
    width, edge = camera.path_width, PATH_EDGE_METRES
    for colour, left, right in ((YELLOW, -edge, width + edge), (GREEN, 0.0, width)):
        corners = [(camera.path_left(z) + side, 0.0, z) for z, side in _strip_corners(left, right)]
        draw.polygon(doubled(camera, corners), fill=blend(colour, camera.floor, paint.fading))
    for across, z, radius in paint.worn_spots:
        x = camera.path_left(z) + across * width
        u, v = camera.project(x, 0, z)
        wide, high = radius * camera.pixels_per_metre(x, z), 0.5 * radius * camera.pixels_per_metre(x, z)
        box = [2 * (u - wide), 2 * (v - high), 2 * (u + wide), 2 * (v + high)]
        draw.ellipse(box, fill=blend(GREEN, camera.floor, 0.8))


def _strip_corners(left: float, right: float) -> list[Point]:
    return [(PATH_NEAR_Z, left), (PATH_FAR_Z, left), (PATH_FAR_Z, right), (PATH_NEAR_Z, right)]


def draw_box(draw: ImageDraw.ImageDraw, camera: Camera, box: Clutter, size: int) -> None:
    """Draw a box, its front and its top, in a picture `size` times as large as the camera's."""
    left, right, depth = box.x - box.width / 2, box.x + box.width / 2, 0.8
    top = [(left, box.height, box.z), (right, box.height, box.z)]
    top += [(right, box.height, box.z + depth), (left, box.height, box.z + depth)]
    draw.polygon(scaled(camera, top, size), fill=shade(box.colour, 1.25))
    draw.polygon(scaled(camera, upright(left, 0, right, box.height, box.z), size), fill=box.colour)


def draw_bins_on_floor(draw: ImageDraw.ImageDraw, camera: Camera, bins: Clutter, size: int) -> None:
    """Draw a stack of bins on the floor, each with its rim."""
    draw_box(draw, camera, bins, size)
    for level in range(1, round(bins.height / 0.42) + 1):
        rim = upright(bins.x - bins.width / 2, 0.42 * level - 0.09, bins.x + bins.width / 2, 0.42 * level, bins.z)
        draw.polygon(scaled(camera, rim, size), fill=shade(ORANGE, 0.7))


def draw_coil(draw: ImageDraw.ImageDraw, camera: Camera, coil: Clutter, size: int) -> None:
    """Draw a coil of steel strip that lies on its side: a short tube with a dark hole."""
    (u, v), scale = camera.project(coil.x, 0, coil.z), size * camera.pixels_per_metre(coil.x, coil.z)
    u, v, wide, high = size * u, size * v, coil.width / 2 * scale, coil.width / 4 * scale
    for rise, colour in ((0.0, 0.7), (0.5 * coil.height, 0.85), (coil.height, 1.2)):
        centre = v - rise * scale
        draw.ellipse([u - wide, centre - high, u + wide, centre + high], fill=shade(coil.colour, colour))
    centre = v - coil.height * scale
    draw.ellipse([u - 0.45 * wide, centre - 0.45 * high, u + 0.45 * wide, centre + 0.45 * high], fill=DARK)


def draw_desk(draw: ImageDraw.ImageDraw, camera: Camera, x: float, z: float) -> None:
    """Draw an operator's desk, which stands behind the seat as the camera sees it."""
    top = [(x - 0.6, 0.75, z + 0.35), (x + 0.6, 0.75, z + 0.35), (x + 0.6, 0.75, z + 1.0), (x - 0.6, 0.75, z + 1.0)]
    draw.polygon(doubled(camera, upright(x - 0.6, 0, x + 0.6, 0.75, z + 0.35)), fill=shade(WOOD, 0.6))
    draw.polygon(doubled(camera, top), fill=WOOD)
    draw.polygon(doubled(camera, upright(x - 0.25, 0.75, x + 0.25, 1.1, z + 0.8)), fill=(44, 50, 60))


def draw_rail(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    """Draw a waist-high rail on either side of the path."""
    for polygon, colour in _rail(camera):
        draw.polygon(polygon, fill=colour)


@lru_cache
def _rail(camera: Camera) -> list[tuple[list[Point], Colour]]:
    left, parts = camera.path_left(RAIL_Z), []
    for start, end in ((-14.0, left - 0.2), (left + camera.path_width + 0.2, 14.0)):
        parts += [(upright(start, bottom, end, bottom + 0.09, RAIL_Z), (206, 176, 40)) for bottom in (0.5, 1.0)]
        posts = np.arange(start, end + 0.01, (end - start) / round((end - start) / 1.5))
        parts += [(upright(post, 0, post + 0.07, 1.1, RAIL_Z), (160, 136, 40)) for post in posts]
    return [(scaled(camera, corners, 1), colour) for corners, colour in parts]


def draw_press(draw: ImageDraw.ImageDraw, camera: Camera, panel_open: bool) -> None:
    """Draw the press with its panel open or closed."""
    left, bottom, right, top = PRESS_FRONT
    side = [(right, bottom, PRESS_Z), (right, bottom, PRESS_Z + 2), (right, top, PRESS_Z + 2), (right, top, PRESS_Z)]
    draw.polygon(doubled(camera, side), fill=shade(MACHINE, 0.7))
    draw.polygon(doubled(camera, upright(*PRESS_FRONT, PRESS_Z)), fill=MACHINE)
    draw.polygon(doubled(camera, upright(left, 0.75, right, 0.95, PRESS_Z)), fill=shade(MACHINE, 1.3))
    (_draw_open_panel if panel_open else _draw_closed_panel)(draw, camera)


def _draw_open_panel(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    """A dark cavity with a glint of cables, its cover swung out on the left."""
    left, bottom, right, top = PANEL_FRONT
    draw.polygon(doubled(camera, upright(left, bottom, right, top, PRESS_Z)), fill=CAVITY)
    for x in (left + 0.6, left + 1.1, left + 1.5):
        draw.polygon(doubled(camera, upright(x, bottom, x + 0.06, top - 0.3, PRESS_Z)), fill=(52, 36, 30))
    hinge, reach = left, (left - 0.5, PRESS_Z - 1.0)
    cover = [(hinge, bottom, PRESS_Z), (reach[0], bottom, reach[1]), (reach[0], top, reach[1]), (hinge, top, PRESS_Z)]
    draw.polygon(doubled(camera, cover), fill=shade(STEEL, 1.2))


def _draw_closed_panel(draw: ImageDraw.ImageDraw, camera: Camera) -> None:
    left, bottom, right, top = PANEL_FRONT
    draw.polygon(doubled(camera, upright(left, bottom, right, top, PRESS_Z)), fill=shade(STEEL, 0.8))
    inner = upright(left + 0.07, bottom + 0.07, right - 0.07, top - 0.07, PRESS_Z)
    draw.polygon(doubled(camera, inner), fill=shade(STEEL, 1.2))
    draw.polygon(doubled(camera, upright(right - 0.3, 1.9, right - 0.2, 2.3, PRESS_Z)), fill=DARK)
