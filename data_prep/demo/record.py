"""The record of the demo's clips: which are there, of which settings, and so which are still to be drawn."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.clips.archive import DATASET_FOLDER
from data_prep.demo.clips import PlannedClip, scene_of
from data_prep.disk.litter import without_litter
from data_prep.errors import InputError
from data_prep.files import sha256_of_file, write_json

RECORD_FILE = "demo_clips.json"
DRAWING = Path(__file__).parent  # holds all that draws and encodes the clips


@dataclass(frozen=True)
class Settings:
    """Everything that the clips depend on: two runs with equal settings write equal files."""

    seed: int
    train_clips: int
    test_clips: int
    generator: str  # hash_of_drawing's, so that an old set is never taken for a new one
    folder: str = DATASET_FOLDER  # that the clips lie in


def hash_of_drawing(folder: Path = DRAWING) -> str:
    """Return the SHA-256 of every Python file below the folder that draws and encodes, names included.

    None is named here, so none is forgotten: clips that any of them could have drawn otherwise are drawn again.
    """
    sources = {path.relative_to(folder).as_posix(): path for path in _files_below(folder) if path.suffix == ".py"}
    listed = "".join(f"{sha256_of_file(sources[name])}  {name}\n" for name in sorted(sources))
    return hashlib.sha256(listed.encode()).hexdigest()


def prepare(out: Path, settings: Settings, plan: list[PlannedClip]) -> list[PlannedClip]:
    """Return the clips that are to be drawn, after removing what other settings left.

    The record is on disk before any clip, with null for a hash that isn't known yet: whatever an interrupted run
    leaves is known to be this script's, and of which settings. A clip is renamed into place, so one that is there
    is whole.
    """
    root = out / settings.folder
    recorded = _read_record(out)
    _refuse_foreign(root, set(recorded["clips"]) if recorded else None)
    _remove_temporaries(root)
    hashes: dict[str, str | None] = {}
    if recorded and recorded["settings"] == asdict(settings):
        known = {path: clip["sha256"] for path, clip in recorded["clips"].items()}
        hashes = {path: sha256 for path, sha256 in known.items() if _is_kept(root / path, sha256)}
    elif recorded:
        for path in recorded["clips"]:
            (root / path).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_record(out, settings, plan, hashes)
    for clip in plan:
        (root / clip.path).parent.mkdir(parents=True, exist_ok=True)
    return [clip for clip in plan if clip.path not in hashes]


def _is_kept(path: Path, sha256: str | None) -> bool:
    return path.is_file() and sha256 in (None, sha256_of_file(path))


def _read_record(out: Path) -> dict[str, Any] | None:
    path = out / RECORD_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        clips = {path: {"sha256": clip["sha256"]} for path, clip in record["clips"].items()}
        return {"settings": dict(record["settings"]), "clips": clips}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not this script's record; remove it and {DATASET_FOLDER!r} beside it") from None


def write_record(out: Path, settings: Settings, plan: list[PlannedClip], hashes: Mapping[str, str | None]) -> None:
    """Write what is known of each clip: its hash, what it copies, and how many first samples don't show its behaviour.

    Samples are counted at one frame a second.
    """
    clips = {
        clip.path: {
            "sha256": hashes.get(clip.path),
            "hidden_samples": math.ceil(scene_of(clip, settings.seed)[0].behaviour_from_seconds),
            "copy_of": clip.copy_of.path if clip.copy_of else None,
        }
        for clip in plan
    }
    write_json(out / RECORD_FILE, {"settings": asdict(settings), "clips": clips})


def _refuse_foreign(root: Path, known: set[str] | None) -> None:
    """Raise InputError if the data set's folder holds anything that this script didn't draw there, but litter."""
    foreign = sorted(path for path in _files_below(root) if path.relative_to(root).as_posix() not in (known or ()))
    if foreign:
        raise InputError(
            f"{foreign[0]}: not drawn by this script ({len(foreign)} such files); "
            "give another folder with --out, or move them away"
        )


def _files_below(folder: Path) -> Iterator[Path]:
    for path in without_litter(folder) if folder.is_dir() else ():
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _files_below(path)


def _remove_temporaries(root: Path) -> None:
    for path in root.rglob(".*.mp4.*.tmp"):
        path.unlink()
