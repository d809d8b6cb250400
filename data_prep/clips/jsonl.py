"""clips.jsonl: one clip's record a line, read, checked and written."""

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from data_prep.clips.records import EXTRACTOR_VERSION, UNVERSIONED, Clip, Settings, natural_key
from data_prep.errors import InputError
from data_prep.files import write_atomic

CLIPS_FILE = "clips.jsonl"
_KEYS = [field.name for field in fields(Clip)]
_LATER_KEYS = {"own_class", "description", "camera", "day", "split_from"}  # records without them have the defaults
_FIRST_KEYS = set(_KEYS) - _LATER_KEYS
_UNVERSIONED_KEYS = _FIRST_KEYS - {"extractor", "samples", "faults"} | {"frames"}


def _parse_clip(line: str) -> Clip:
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"not a whole JSON object ({error.msg} at column {error.colno})") from None
    try:
        if isinstance(record, dict):
            record = _of_known_version(record)
        if not isinstance(record, dict) or set(record) not in (set(_KEYS), _FIRST_KEYS):
            raise InputError(f"a clip's record has exactly the keys {', '.join(_KEYS)}")
        faults = None if record["faults"] is None else tuple(sorted(record["faults"].items()))
        values = {"settings": Settings(**record["settings"]), "samples": tuple(record["samples"]), "faults": faults}
        return Clip(**{**record, **values})
    except (TypeError, AttributeError) as error:
        raise InputError(f"a value has the wrong type ({error})") from None


def _of_known_version(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the keys of today's, whatever it holds. Raises InputError for one of a later extractor."""
    if isinstance(version := record.get("extractor"), int) and version > EXTRACTOR_VERSION:
        raise InputError(
            f"extractor {version} is a later version's, this one knows up to {EXTRACTOR_VERSION}; update the project, "
            "or start over"
        )
    if set(record) != _UNVERSIONED_KEYS:
        return record
    others = {key: value for key, value in record.items() if key != "frames"}
    return {**others, "extractor": UNVERSIONED, "samples": range(record["frames"]), "faults": None}


def read_clips(path: Path) -> list[Clip]:
    """Read clips.jsonl, records of an earlier extractor as well.

    Raises InputError, naming file and line, for a missing file, a record that is torn, contradicts itself or is of a
    later extractor, and for two records of one path or of one video_id in one split.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run data_prep/extract_frames.py first") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    clips, seen = [], set[tuple[str, ...]]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            clip = _parse_clip(line)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}; delete the file and run extract_frames.py again") from None
        keys = {(clip.path,), (clip.split, clip.video_id)}
        if keys & seen:
            raise InputError(f"{path}:{number}: second record of {clip.path!r} or of its video_id {clip.video_id!r}")
        seen |= keys
        clips.append(clip)
    return clips


def read_finished_clips(path: Path) -> list[Clip]:
    """Read clips.jsonl in natural order of the clips' paths, once the extraction is through.

    Raises InputError as `read_clips` does, for a file without a clip, and while clips are pending.
    """
    clips = sorted(read_clips(path), key=lambda clip: natural_key(clip.path))
    pending = sum(clip.status == "pending" for clip in clips)
    if pending or not clips:
        found = f"extraction stopped before {pending} clips" if pending else "holds no clip"
        raise InputError(f"{path}: {found}; run data_prep/extract_frames.py again")
    return clips


def write_clips(path: Path, clips: Iterable[Clip]) -> None:
    """Write clips.jsonl, one record a line in natural order of the clips' paths, whole or not at all."""
    ordered = sorted(clips, key=lambda clip: natural_key(clip.path))
    write_atomic(path, "".join(f"{_as_line(clip)}\n" for clip in ordered).encode())


def _as_line(clip: Clip) -> str:
    """Return a clip's record as JSON. `asdict` would copy the samples one by one."""
    faults = None if clip.faults is None else dict(clip.faults)
    record = {**vars(clip), "settings": asdict(clip.settings), "faults": faults}
    return json.dumps(record, ensure_ascii=False, allow_nan=False)
