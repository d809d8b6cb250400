"""Files that are whole at their final path or absent, folders that one process works in, where paths start."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.errors import InputError

PROJECT_ROOT = Path(__file__).resolve().parents[1]


def from_root(path: str | Path) -> Path:
    """Resolve `path` against the project's root, wherever the command was started; absolute paths stay.

    A leading `~` is the user's home; before a name that is no user's it is part of that name.
    """
    try:
        return PROJECT_ROOT / Path(path).expanduser()
    except RuntimeError:
        return PROJECT_ROOT / path


def to_root(path: Path) -> str:
    """Write `path` relative to the project's root where it lies inside it, so that no machine's path is recorded."""
    return path.relative_to(PROJECT_ROOT).as_posix() if path.is_relative_to(PROJECT_ROOT) else path.as_posix()


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path` and rename it: a reader sees the old file or the new one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Return once a file's content, or a folder's list of names, is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of these names below `folder` that belong together, in order; the last speaks for the others.

    All of them are on disk before the first takes its place, so that whatever fails while they are made or written
    leaves the old ones as they were. Being killed between two renames is all that could mix old and new.
    """
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as staging:
        for name, content in contents.items():
            staged = Path(staging) / name
            staged.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(staged, content)
        for name in contents:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(staging) / name).replace(folder / name)


def as_json(value: Any) -> bytes:
    """Return `value` as indented UTF-8 JSON. NaN and infinity raise ValueError: JSON has neither."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as as_json gives it, atomically."""
    write_atomic(path, as_json(value))


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def hold_lock(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file, which the system releases however this process ends.

    Raises InputError with the message `refusal` where another process holds it.
    """
    import fcntl  # Windows has none: run_script must get as far as to say so

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(refusal) from None
        yield
