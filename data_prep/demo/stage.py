"""The plant that the demo shows: its two cameras, and what may stand, walk and drive in it.

Lengths are in metres on the plant's floor: x to the right, y up, z away from the camera, whose foot is the origin.
"""

import math
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 360
CAMERA_HEIGHT_METRES = 4.0
SECONDS_IN_VIEW = 8.0  # a behaviour stays in the camera's view for as long as the longest clip

Colour = tuple[int, int, int]
Point = tuple[float, float]

HELMETS: dict[str, Colour] = {"white": (226, 226, 222), "blue": (60, 96, 176), "yellow": (226, 190, 50)}

PATH_NEAR_Z, PATH_FAR_Z = 2.6, 18.0
PATH_EDGE_METRES = 0.14


@dataclass(frozen=True)
class Camera:
    """A fixed pinhole camera four metres up: where it looks, and where the path and the wall lie in its view."""

    name: str
    pitch_degrees: float
    yaw_degrees: float
    focal_pixels: float
    path_x: tuple[float, float]  # the path's left edge: x at the near and at the far end
    path_width: float
    floor: Colour
    wall_z: float
    clutter_z: tuple[float, float]
    seats: tuple[Point, ...]  # where an operator may sit, as (x, z)

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

    def metres_beside_path(self, x: float, z: float) -> float:
        """Return how far (x, z) lies beside the path: negative to its left, positive to its right, 0 on it."""
        from_left = x - self.path_left(z)
        return min(from_left, 0.0) + max(from_left - self.path_width, 0.0)


HALL = Camera(
    "hall",
    pitch_degrees=24,
    yaw_degrees=0,
    focal_pixels=500,
    path_x=(-1.6, 0.6),
    path_width=1.6,
    floor=(128, 126, 122),
    wall_z=19,
    clutter_z=(17.6, 18.4),
    seats=((-4.3, 9.0), (4.4, 10.0)),
)


PRESS_SHOP = Camera(
    "press shop",
    pitch_degrees=22,
    yaw_degrees=-7,
    focal_pixels=520,
    path_x=(2.2, 1.8),
    path_width=1.3,
    floor=(112, 116, 120),
    wall_z=13,
    clutter_z=(10.5, 12.2),
    seats=((0.9, 7.2), (0.7, 9.4)),
)


# The rail across the far end of HALL; whoever is behind it has nothing to do with the hall.
RAIL_Z = 15.5


# The press of PRESS_SHOP: its front, as (left x, bottom y, right x, top y) at one depth, and the panel in it.
PRESS_Z = 8.0
PRESS_FRONT = (-5.4, 0.0, -0.6, 3.3)
PANEL_FRONT = (-4.5, 1.2, -2.5, 2.9)


@dataclass(frozen=True)
class Person:
    """Somebody in the plant: where they are at the clip's start, how they move, and what they wear."""

    x: float
    z: float
    x_metres_per_second: float
    z_metres_per_second: float
    vest: bool
    helmet: str
    stature: float  # 1 is 1.75 m
    phase_radians: float
    seated: bool = False

    @property
    def walks(self) -> bool:
        """Whether they are on their way rather than at work in one place."""
        return bool(self.x_metres_per_second or self.z_metres_per_second)

    def at(self, seconds: float) -> Point:
        """Return (x, z), where they are then."""
        return self.x + self.x_metres_per_second * seconds, self.z + self.z_metres_per_second * seconds


@dataclass(frozen=True)
class Forklift:
    """A forklift seen from the side that crosses the hall with orange bins on its fork, in one or two stacks."""

    x: float
    z: float
    x_metres_per_second: float
    bins: int
    stacks: int

    def at(self, seconds: float) -> Point:
        """Return (x, z), where it is then."""
        return self.x + self.x_metres_per_second * seconds, self.z


@dataclass(frozen=True)
class Clutter:
    """Something on the floor that has nothing to do with any behaviour: `kind` is box, coil or bins."""

    kind: str
    x: float
    z: float
    width: float
    height: float
    colour: Colour


@dataclass(frozen=True)
class Paint:
    """How the path's paint looks: how faded it is, from 0 to 1, and worn spots as (x share of width, z, radius)."""

    fading: float
    worn_spots: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Light:
    """The light of a clip: gains a channel, and how the brightness changes while it lasts."""

    gains: tuple[float, float, float]
    drift_per_second: float
    flicker_radians: float
    sun_x: float | None  # the left edge of a sunlit stretch of floor


@dataclass(frozen=True)
class Scene:
    """Everything that one clip shows.

    `behaviour_from_seconds` is when the person or the forklift that the class is about comes into view; `bystanders`
    don't count for any class: they sit, keep to the path, or are behind the rail.
    """

    camera: Camera
    panel_open: bool
    person: Person | None
    forklift: Forklift | None
    behaviour_from_seconds: float
    bystanders: tuple[Person, ...]
    clutter: tuple[Clutter, ...]
    screen: Clutter | None  # crates that stand before the forklift's way
    paint: Paint
    light: Light
    noise_sigma: float
    noise_seed: int

    def person_at(self, seconds: float) -> Person | None:
        """Return the person that the class is about, if in view by then."""
        return self.person if seconds >= self.behaviour_from_seconds else None

    def forklift_at(self, seconds: float) -> Forklift | None:
        """Return the forklift, if in view by then."""
        return self.forklift if seconds >= self.behaviour_from_seconds else None
