"""Frames and clips of a data folder to try an adapter on."""

from pathlib import Path

from data_prep.clips.records import FRAMES_FOLDER, frame_name
from data_prep.disk.litter import is_litter
from data_prep.labels import SAFE, TEST, UNSAFE


def examples_in(data: Path) -> list[tuple[str, Path]]:
    """Return examples of a data folder by their names: a test frame of each label and a clip, where there are any."""
    unsafe, safe = (f"{FRAMES_FOLDER}/{TEST}/{label.lower()}/*/{frame_name(2)}" for label in (UNSAFE, SAFE))
    places = {
        f"a frame of an {UNSAFE} clip": unsafe,
        f"a frame of a {SAFE} clip": safe,
        "a clip": f"*/{TEST}/*/*.mp4",
    }
    return [(name, path) for name, pattern in places.items() for path in _found(data, pattern)[:1]]


def _found(data: Path, pattern: str) -> list[Path]:
    paths = sorted(data.glob(pattern))
    return [path for path in paths if not any(map(is_litter, path.relative_to(data).parts))]
