"""Whose a folder is, what is free there, and how another one is had in its stead: what an error's advice needs."""

import os
import shlex
import stat
import sys
import tempfile
from pathlib import Path

from data_prep.disk.byte_counts import size_in_words

SHARED_MEMORY = Path("/dev/shm")
PROJECT_ROOT = Path(__file__).resolve().parents[2]
# Folders that are nobody's to take over: these, and in the case of the second all below.
_SHARED = {Path(path) for path in ("/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/tmp")}
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr")


def other_place(path: Path | None) -> str:
    """Say how another folder is had in a path's stead."""
    cache, temporary = _hf_home(), temporary_folder()
    if path is None or any(path.is_relative_to(folder) for folder in _given()):
        return "name another folder"
    if path == SHARED_MEMORY:
        return "give the container more of it (shm_size), or set dataloader_num_workers to 0"
    if path.is_relative_to(cache) or (path in cache.parents and not os.path.lexists(path)):
        return "set HF_HOME to another folder"
    return f"{'set TMPDIR to' if path.is_relative_to(temporary) else 'name'} another folder"


def temporary_folder() -> Path:
    """Return where temporary files go, without a look whether they can."""
    return Path(tempfile.tempdir or os.environ.get("TMPDIR") or "/tmp")


def _hf_home() -> Path:
    if given := os.environ.get("HF_HOME"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "huggingface"
    except RuntimeError:  # a user without a name or a home
        return Path("/.cache/huggingface")


def _given() -> list[Path]:
    """Return the paths that the command line names."""
    return [PROJECT_ROOT / word.rpartition("=")[2] for word in sys.argv[1:] if "/" in word]


def room_at(path: Path) -> str:
    """Say what is free on the disk that a path lies on."""
    try:
        disk = os.statvfs(standing(path))
    except OSError:
        return "what is free there isn't known"
    if disk.f_files and not disk.f_favail:
        return "it has no place for another file, however small"
    return f"{size_in_words(disk.f_bavail * disk.f_frsize)} free there"


def standing(path: Path) -> Path:
    """Return the path, or the nearest folder above that exists."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def _barrier(paths: list[Path]) -> Path:
    """Return what keeps this user out: a folder that may not be entered or written to, or the file itself."""
    for path in paths:
        for folder in reversed(path.parents):
            if folder.is_dir() and not os.access(folder, os.X_OK):
                return folder
    for path in paths:
        if path.exists() and not os.access(path, os.R_OK):
            return path
        folder = path if path.is_dir() else standing(path.parent)
        if not os.access(folder, os.W_OK):
            return folder
    return standing(paths[0])


def how_to_be_let_in(paths: list[Path], elsewhere: str) -> str:
    """Say whose it is that keeps this user from using one of the paths, and how to change that."""
    me, my_group = os.geteuid(), os.getegid()
    try:
        barrier = _barrier(paths)
        found = barrier.stat()
    except OSError:
        return f"; see who may use it, or {elsewhere}"
    owner, place = _user(found.st_uid), shlex.quote(str(barrier))
    if found.st_uid == me and not os.access(barrier, os.R_OK | os.W_OK):
        return f"; run: chmod -R u+rwX {place}"
    if found.st_uid == me or me == 0:
        as_whom = "" if found.st_uid == me else f", or run this as {owner}"
        return f"; the file system or a security module refuses it (see ls -ldZ and lsattr -d){as_whom}, or {elsewhere}"
    if _is_shared(barrier, found):
        return f", because {place} is {owner}'s and this runs as {_user(me)}; {elsewhere}"
    top = _top(barrier, found.st_uid)
    named = [folder for path in paths for folder in (path, *path.parents) if folder in _places()]
    new = [folder for folder in named if os.access(barrier, os.X_OK) and not os.path.lexists(folder)]
    command = f"install -d -o {me} -g {my_group}" if new else f"chown -R {me}:{my_group}"
    return (
        f", because {top} belongs to {owner} and this runs as {_user(me)}; run: sudo {command} "
        f"{shlex.quote(str(new[0] if new else top))}, or run this as {owner}"
    )


def _is_shared(folder: Path, found: os.stat_result) -> bool:
    """Say whether a folder is one that others rely on: the system's, one for everybody, somebody's home."""
    system = len(folder.parts) > 1 and folder.parts[1] in _SYSTEM
    everybodys = stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)
    return system or everybodys or folder in _SHARED or folder.parent == Path("/home")


def _top(barrier: Path, owner: int) -> Path:
    """Return all that is to change hands: the folder that was named, the project's own, or the cache.

    Where the barrier lies in none of these, it is the barrier alone: what lies above may be somebody else's.
    """
    whole = [folder for folder in barrier.parents if folder in _places() and folder.stat().st_uid == owner]
    return whole[0] if whole else barrier


def _places() -> set[Path]:
    """Return the folders that are worked in, as wholes."""
    return {*_given(), *(PROJECT_ROOT / name for name in ("data", "outputs", "cache")), _hf_home()}


def _user(number: int) -> str:
    import pwd  # Windows has none

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
