"""Frames and clips of a data folder to try an adapter on."""

from pathlib import Path

from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.clips.records import FOLDER, FRAMES_FOLDER, frame_name
from data_prep.disk.litter import is_litter
from data_prep.labels import SAFE, TEST, UNSAFE


def examples_in(data: Path) -> list[tuple[str, Path]]:
    """Return examples of a data folder by their names: a test frame of each label and a clip, where there are any."""
    unsafe, safe = (
        _found(data, f"{FRAMES_FOLDER}/{TEST}/{label.lower()}/*/{frame_name(2)}") for label in (UNSAFE, SAFE)
    )
    places = {
        f"a frame of an {UNSAFE} clip": unsafe,
        f"a frame of a {SAFE} clip": safe,
        "a clip": _found(data, f"*/{TEST}/*/*.mp4") or _clips_without_split_folder(data),
    }
    return [(name, path) for name, paths in places.items() for path in paths[:1]]


def _clips_without_split_folder(data: Path) -> list[Path]:
    """Return test clips of a data set that has no folder of them, where it lies in a folder of the data folder."""
    if not (data / CLIPS_FILE).is_file():
        return []
    tested = [clip.path for clip in read_clips(data / CLIPS_FILE) if clip.split == TEST and clip.split_from != FOLDER]
    roots = [folder for folder in sorted(data.iterdir()) if folder.is_dir() and not is_litter(folder.name)]
    return [root / path for path in tested for root in roots if (root / path).is_file()][:1]


def _found(data: Path, pattern: str) -> list[Path]:
    paths = sorted(data.glob(pattern))
    return [path for path in paths if not any(map(is_litter, path.relative_to(data).parts))]
