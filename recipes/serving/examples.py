"""Frames and clips of a data folder to try an adapter on."""

from pathlib import Path

from data_prep.disk.litter import is_litter


def examples_in(data: Path) -> list[tuple[str, Path]]:
    """Return examples of a data folder by their names: a test frame of each label and a clip, where there are any."""
    places = {
        "a frame of an UNSAFE clip": "frames/test/unsafe/*/0002.jpg",
        "a frame of a SAFE clip": "frames/test/safe/*/0002.jpg",
        "a clip": "*/test/*/*.mp4",
    }
    return [(name, path) for name, pattern in places.items() for path in _found(data, pattern)[:1]]


def _found(data: Path, pattern: str) -> list[Path]:
    paths = sorted(data.glob(pattern))
    return [path for path in paths if not any(map(is_litter, path.relative_to(data).parts))]
