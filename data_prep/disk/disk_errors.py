"""What a disk, a file system or their permissions refuse, said in one line: which path, what is wrong, what to do."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.disk.byte_counts import size_in_words
from data_prep.disk.places import SHARED_MEMORY, how_to_be_let_in, other_place, room_at, temporary_folder

_AGAIN = "see whether its disk or share is still mounted and sound"
_ANEW = f"{_AGAIN}; mount the share anew"
_IN_USE = "another program uses it; wait for that or end it"
_NOT_SO = "look what lies there, and move it away"
_UNABLE = "this file system can't do that; {elsewhere}, on another one"

# By error number, what is to be done. What is missing here is a fault of the program and keeps its traceback.
_REMEDIES = {
    errno.EACCES: "",  # these two depend on who owns what: see _permission
    errno.EPERM: "",
    errno.EROFS: "mount it so that it can be written to (in docker-compose.yml :rw), or {elsewhere}",
    errno.ENOSPC: "make room there, or {elsewhere}",
    errno.EDQUOT: "this user's quota is used up: remove files of yours there, or {elsewhere}",
    errno.EFBIG: "no file there may be as large (4 GiB on FAT, or see ulimit -f); {elsewhere}",
    errno.ENOLCK: "mount it with locks (NFS: nfs-common and rpc.statd), or {elsewhere}, on a disk of this machine",
    errno.EIO: f"{_AGAIN}: dmesg says what the disk reports",
    errno.ENODEV: _AGAIN,
    errno.ENXIO: _AGAIN,
    errno.ESTALE: _ANEW,
    errno.ENOTCONN: _ANEW,
    errno.ENOENT: f"was it moved or removed meanwhile? If not, {_AGAIN}",
    errno.EUCLEAN: "its file system is damaged; have it checked with fsck",
    errno.ENAMETOOLONG: "give it a shorter name, or {elsewhere}, with a shorter path",
    errno.EMFILE: "allow a process more open files: ulimit -n 65536",
    errno.ENFILE: "the machine has no more open files; end other programs",
    errno.ENOTSUP: _UNABLE,
    errno.ENOSYS: _UNABLE,
    errno.EXDEV: _UNABLE,
    errno.EMLINK: _UNABLE,
    errno.ETXTBSY: _IN_USE,
    errno.EBUSY: _IN_USE,
    errno.ENOTEMPTY: _IN_USE,
    errno.ENOTDIR: _NOT_SO,
    errno.EISDIR: _NOT_SO,
    errno.EEXIST: _NOT_SO,
    errno.ELOOP: "its links lead round in a circle; remove them",
}
# Numbers that say this only where a path stands beside them: without one, the program may have asked for nonsense.
_WITH_PATH = {errno.ENOENT, errno.EEXIST, errno.ENOTCONN, errno.ENOSYS, errno.ENXIO, errno.ENODEV, errno.EBUSY}
# Exceptions that say that the program is wrong, even while it deals with an error of the disk's.
_FAULTS = (TypeError, ValueError, AttributeError, NameError, LookupError, AssertionError, ArithmeticError)
_WORDS = re.compile(r"\[[Ee]rrno (\d+)\]|\(os error (\d+)\)|<[^>]*>.*: .* \((\d+)\)")
# What tempfile says where it can write a file to none of its folders, as where all are full.
_NO_TEMPORARY = "No usable temporary directory found"
# torch's C++ writer of checkpoints names neither file nor number.
_TORCH_WRITES = ("PytorchStreamWriter failed", "iostream error", ". unexpected pos ")
# What safetensors says of any file that it can't open, whatever the reason.
_SAFETENSORS = re.compile(r"No such file or directory: (/.*)")
_UNNAMED = "a file that isn't named, perhaps the output or a temporary one"
# How torch's messages name what DataLoader's workers hand over.
_SHARED_MEMORY = ("</torch_", "out of shared memory")


@dataclass(frozen=True)
class Trouble:
    """An error of the disk's: its number, what it says, and the paths that it names, if any."""

    number: int
    words: str
    paths: tuple[str, ...]


def told(error: BaseException, place: str = _UNNAMED) -> str | None:
    """Return what an error of the disk's comes to, as one line; None for anything else.

    Libraries wrap such errors: what an exception was raised from counts as well. `place` stands where none is named.
    """
    trouble = find(error)
    if trouble is None:
        return None
    where = " -> ".join(trouble.paths) or place
    plain = trouble.paths and trouble.words == os.strerror(trouble.number)
    words = words_of(trouble.number, Path(trouble.paths[-1])) if plain else trouble.words
    line = " ".join(f"{where}: {words}{_advice(trouble)}".split())
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")  # whatever bytes a name holds


def find(error: BaseException) -> Trouble | None:
    """Return the error of the disk's that an exception is or was raised from, one that names a path before others."""
    found = [trouble for each in _chain(error) if (trouble := _trouble(each))]
    return next((trouble for trouble in found if trouble.paths), found[0] if found else None)


@contextlib.contextmanager
def named(path: Path, size: int | None = None) -> Iterator[None]:
    """Have an error of the disk's that names no path, as those of a full disk and most libraries', name this one.

    `size` is how many bytes are to be written, which a full disk is told of with.
    """
    try:
        yield
    except Exception as error:
        trouble = find(error)
        if trouble is None or trouble.paths:
            raise
        raise OSError(trouble.number, words_of(trouble.number, path, size), str(path)) from error


def words_of(number: int, path: Path, size: int | None = None) -> str:
    """Return an error number's words; of a full disk with what was to be written, in bytes, and what is free now."""
    if number not in (errno.ENOSPC, errno.EDQUOT):
        return os.strerror(number)
    wanted = "" if size is None else f" for {size_in_words(size)}"
    return f"{os.strerror(number)}{wanted} ({room_at(path)})"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and not any(error is each for each in seen):
        seen.append(error)
        yield error
        implied = None if error.__suppress_context__ or isinstance(error, _FAULTS) else error.__context__
        error = error.__cause__ or implied


def _trouble(error: BaseException) -> Trouble | None:
    text = str(error)
    if _NO_TEMPORARY in text:
        return Trouble(errno.ENOSPC, text[text.index(_NO_TEMPORARY) :], (str(temporary_folder()),))
    if isinstance(error, OSError) and isinstance(error.errno, int):
        number, words = error.errno, error.strerror or os.strerror(error.errno)
        paths = tuple(os.fsdecode(path) for path in (error.filename, error.filename2) if _is_path(path))
        paths = paths or _paths_in(text)
        words = os.strerror(number) if paths and paths[0] in words else words
    else:
        number, paths = _number_in(text), _paths_in(text)
        if found := _SAFETENSORS.fullmatch(text):
            number, paths = _why_not_opened(found[1]), (found[1],)
        words = os.strerror(number)
    known = number in _REMEDIES and (paths or number not in _WITH_PATH)
    return Trouble(number, words, paths) if known else None


def _why_not_opened(path: str) -> int:
    try:
        with Path(path).open("rb"):
            return 0
    except OSError as error:
        return error.errno or 0


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _number_in(text: str) -> int:
    """Return the error number that a library's message gives, 0 for none."""
    if any(words in text for words in (*_TORCH_WRITES, _SHARED_MEMORY[1])):
        return errno.ENOSPC
    numbers = [next(filter(None, match.groups())) for match in _WORDS.finditer(text)]
    return int(numbers[-1]) if numbers else 0


def _paths_in(text: str) -> tuple[str, ...]:
    if any(words in text for words in _SHARED_MEMORY):
        return (str(SHARED_MEMORY),)
    return tuple(re.findall(r"'(/[^'\n]+)'", text)[-2:])


def _advice(trouble: Trouble) -> str:
    path = Path(trouble.paths[-1]) if trouble.paths else None
    elsewhere = other_place(path)
    if trouble.number in (errno.EACCES, errno.EPERM) and path:
        return how_to_be_let_in([Path(each) for each in trouble.paths], elsewhere)
    remedy = _REMEDIES[trouble.number] or "see who may use it"
    return f"; {remedy.format(elsewhere=elsewhere)}"
