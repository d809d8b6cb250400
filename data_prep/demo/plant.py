"""The demo's drawings as the data set of another plant: folders by camera, day and behaviour, and no split.

It has its own words and its own question; what is drawn is the same, one of three cameras being the hall in a mirror.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from data_prep.demo.clips import PlannedClip
from data_prep.demo.scenes import camera_of
from data_prep.demo.stage import HALL

PLANT_FOLDER = "clips"  # that they lie in
CLASSES_FILE, PROMPT_FILE = "classes.yaml", "prompt.txt"
# Of these the split by days makes one of each camera's test; of so few it might as well be none.
DAYS = ("2024-09-09", "2024-09-10", "2024-09-11", "2024-09-12", "2024-09-13")
HALLS, PRESS = ("hall_east", "hall_west"), "press_shop"  # the second hall is the first one in a mirror

# The folder of each of the eight behaviours, by digit.
FOLDERS = (
    "beside_path",
    "press_without_vest",
    "cover_open",
    "bins_3_or_more",
    "on_path",
    "press_with_vest",
    "cover_closed",
    "bins_2_or_fewer",
)
CLASSES = """\
beside_path: UNSAFE
press_without_vest: {label: UNSAFE, description: a worker at the press without a vest}
cover_open: UNSAFE
bins_3*: {label: UNSAFE, description: a forklift with three bins or more}
on_path: SAFE
press_with_vest: SAFE
cover_closed: SAFE
bins_2*: {label: SAFE, description: a forklift with two bins or fewer}
"""
PROMPT = "You watch the cameras of a plant. Is what this frame shows SAFE or UNSAFE? Answer with one word.\n"


def as_plant(plan: Sequence[PlannedClip]) -> list[PlannedClip]:
    """Return planned clips where this plant keeps them: `<camera>/<day>/<folder>/<number>.mp4`.

    Behaviours take turns on the days, and those in the hall on its two cameras. A copy lies where its own class does.
    """
    counted: Counter[int] = Counter()
    placed: dict[str, PlannedClip] = {}
    for clip in plan:
        digit = clip.source_class.digit
        in_hall = camera_of(digit) is HALL
        turn, counted[digit] = counted[digit], counted[digit] + 1
        camera = HALLS[turn % len(HALLS)] if in_hall else PRESS
        day = DAYS[(turn // len(HALLS) if in_hall else turn) % len(DAYS)]
        place = f"{camera}/{day}/{FOLDERS[digit]}/{turn + 1:03d}.mp4"
        placed[clip.published_path] = replace(clip, place=place, mirrored=camera == HALLS[1])
    copied = {path: clip.copy_of for path, clip in placed.items() if clip.copy_of}
    return [
        replace(clip, copy_of=placed[copied[path].published_path]) if path in copied else clip
        for path, clip in placed.items()
    ]
