"""Files that are whole at their final path or absent, and where paths start."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.disk.disk_errors import named, words_of
from data_prep.disk.places import PROJECT_ROOT as PROJECT_ROOT
from data_prep.disk.places import standing
from data_prep.errors import InputError

# What a file system says that lacks an operation. EINVAL is what most say of fsync on a folder.
UNSUPPORTED = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EINVAL)


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


def portable_name(path: str | Path) -> str:
    """Name a path from the project's root, and one outside it by its last part: the rest is this machine's alone."""
    name = to_root(Path(path)) if Path(path).is_absolute() else str(path)
    return Path(name).name if Path(name).is_absolute() else name


def read_text(path: Path, flag: str) -> str:
    """Return what a text file that a flag names holds. Raises InputError where it is missing or no UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{flag} {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{flag} {path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path` and rename it: a reader sees the old file or the new one.

    Raises OSError, naming `path`, where it can't be written.
    """
    temporary = _write_beside(path, content)
    try:
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_beside(path: Path, content: bytes) -> Path:
    """Write `content` to a temporary file beside `path`, all of it on the disk, and return that."""
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            with if_supported():
                os.fsync(file.fileno())
        with if_supported():
            temporary.chmod(0o644)
    except OSError as error:
        words = words_of(error.errno or 0, path, len(content))
        _remove(temporary)
        raise OSError(error.errno, words, str(path)) from error
    except BaseException:
        _remove(temporary)
        raise
    return temporary


def _remove(temporary: Path | None) -> None:
    if temporary:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def if_supported() -> Iterator[None]:
    """Pass over a permission, a time or a flush that the file system doesn't know, as those of FAT, SMB and FUSE."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def replace(path: Path, final: Path) -> None:
    """Rename a file to `final`, over what stands there; where the file system won't do both at once, one by one.

    Killed between the two, it leaves no file at `final` and the old one beside it, hidden.
    """
    try:
        path.replace(final)
    except OSError as error:
        if error.errno not in (errno.EEXIST, *UNSUPPORTED) or not final.is_file():
            raise
        aside = final.with_name(f".{final.name}.old")
        aside.unlink(missing_ok=True)
        final.rename(aside)
        try:
            path.rename(final)
        except BaseException:
            aside.rename(final)
            raise
        aside.unlink()


def sync(path: Path) -> None:
    """Return once a file's content, or a folder's list of names, is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with named(path), if_supported():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_together(folder: Path, contents: Mapping[str, bytes], *, remove_first: Sequence[str] = ()) -> None:
    """Write files of these names below `folder` that belong together, in order; the last speaks for the others.

    All of them are on disk before the first takes its place, so that whatever fails while they are made or written
    leaves the old ones as they were. Being killed between two renames is all that could mix old and new; those of
    `remove_first` are gone by then, and missing is what a reader finds.
    """
    staged: dict[Path, Path] = {}
    try:
        for name, content in contents.items():
            final = folder / name
            final.parent.mkdir(parents=True, exist_ok=True)
            staged[final] = _write_beside(final, content)
        for name in remove_first:
            (folder / name).unlink(missing_ok=True)
        for final, temporary in staged.items():
            replace(temporary, final)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path, size: int = 0) -> None:
    """Raise OSError unless a folder, or the nearest one above that exists, takes a file of so many bytes.

    None is left.
    """
    place = standing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
        if shutil.disk_usage(place).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        number = error.errno or 0
        raise OSError(number, words_of(number, place, size or None), str(folder)) from error


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
