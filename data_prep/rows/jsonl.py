"""One JSONL row a frame: read, write and check it, with file and line in every error."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from data_prep.errors import InputError
from data_prep.files import write_atomic
from data_prep.labels import LABELS

ROW_KEYS = ("image", "prompt", "response")


@dataclass(frozen=True)
class Row:
    """One training or test sample. `image` is relative to the folder of the JSONL that holds the row."""

    image: str
    prompt: str
    response: str

    def __post_init__(self) -> None:
        _check_relative(self.image)
        if not self.prompt.strip():
            raise InputError("prompt is empty")
        if self.response not in LABELS:
            raise InputError(f"response {self.response!r} is not one of {', '.join(LABELS)}")


def _check_relative(image: str) -> None:
    advice = "write it relative to the JSONL's own folder"
    if "://" in image or image.startswith(("data:", "file:")):
        raise InputError(f"image {image!r} is a URL; {advice}")
    if image.startswith(("/", "\\", "~")) or (len(image) > 1 and image[1] == ":"):
        raise InputError(f"image {image!r} is an absolute path; {advice}")
    parts = PurePosixPath(image.replace("\\", "/")).parts
    if ".." in parts:
        raise InputError(f"image {image!r} holds '..'; {advice}")
    if not parts or "\0" in image:
        raise InputError(f"image {image!r} is not a path; {advice}")


def _parse_row(line: str) -> Row:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not a whole JSON object ({error.msg} at column {error.colno}); run build_jsonl.py again"
        ) from None
    if not isinstance(record, dict) or set(record) != set(ROW_KEYS):
        found = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise InputError(f"a row has exactly the keys {', '.join(ROW_KEYS)}; found {found}")
    for key, value in record.items():
        if not isinstance(value, str):
            raise InputError(f"{key} must be a string, found {type(value).__name__}")
    return Row(**record)


def read_numbered_rows(jsonl: Path) -> list[tuple[int, Row]]:
    """Read every row of a JSONL file, in order, each with its line number, counted from 1.

    Raises InputError, naming file and line, for a missing or empty file and for the first row that is torn, has other
    keys, an answer that is none of the labels, or an image path that could lead out of the data folder.
    """
    try:
        text = jsonl.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{jsonl}: no such file; run data_prep/build_jsonl.py first") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{jsonl}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((number, _parse_row(line)))
        except InputError as error:
            raise InputError(f"{jsonl}:{number}: {error}") from None
    if not rows:
        raise InputError(f"{jsonl}: holds no row; run data_prep/build_jsonl.py again")
    return rows


def read_rows(jsonl: Path) -> list[Row]:
    """Read every row of a JSONL file, in order; raises as `read_numbered_rows` does."""
    return [row for _, row in read_numbered_rows(jsonl)]


def with_prompt(rows: Mapping[str, Iterable[Row]], prompt: str) -> dict[str, list[Row]]:
    """Return each split's rows with the question that all of them ask."""
    return {split: [replace(row, prompt=prompt) for row in each] for split, each in rows.items()}


def as_jsonl(rows: Iterable[Row]) -> bytes:
    """Return rows as JSONL, one object a line."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows).encode()


def write_rows(jsonl: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL, whole or not at all."""
    write_atomic(jsonl, as_jsonl(rows))


def image_path(folder: Path, image: str, where: str) -> Path:
    """Return the file that a row's `image` names inside `folder`.

    `where` is the row's file and line. Raises InputError for a missing image, one that is no regular file, or one that
    a link leads out of `folder`.
    """
    real_folder = folder.resolve()
    path = (real_folder / image).resolve()
    if not path.is_relative_to(real_folder):
        raise InputError(f"{where}: image {image!r} leads out of {folder} through a link; copy the file in instead")
    if not path.exists():
        raise InputError(
            f"{where}: image {image!r} is missing; run data_prep/extract_frames.py and build_jsonl.py again"
        )
    if not path.is_file():
        raise InputError(f"{where}: image {image!r} is not a regular file")
    return path
