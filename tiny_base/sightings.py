"""Who is in the picture at a time, and where: what a camera's frame lets one count."""

from data_prep.demo.stage import PATH_EDGE_METRES, RAIL_Z, WIDTH, Person, Scene

# A person's shoulders or a bin's side must be this far inside the picture to count as seen.
MARGIN_PIXELS = 4


def people_in_view(scene: Scene, seconds: float) -> list[Person]:
    """Everybody who is in the picture then, but for a forklift's driver."""
    counted = scene.person_at(seconds)
    people = (*scene.bystanders, *([counted] if counted else []))
    return [person for person in people if is_in_picture(scene, *person.at(seconds))]


def is_in_picture(scene: Scene, x: float, z: float) -> bool:
    """Say whether what stands there on the floor counts as seen; `x` and `z` are in metres."""
    u, _ = scene.camera.project(x, 0, z)
    half_width = 0.25 * scene.camera.pixels_per_metre(x, z)
    return half_width + MARGIN_PIXELS < u < WIDTH - half_width - MARGIN_PIXELS


def walkers_in_view(scene: Scene, seconds: float) -> list[Person]:
    """Those who walk before the rail, on the path or off it."""
    return [person for person in people_in_view(scene, seconds) if person.walks and person.at(seconds)[1] < RAIL_Z]


def metres_beside_path(scene: Scene, person: Person, seconds: float) -> float:
    """Return how far the person is beside the path's yellow edges: 0 on the path, negative to its left."""
    metres = scene.camera.metres_beside_path(*person.at(seconds))
    return 0.0 if abs(metres) < PATH_EDGE_METRES else metres
