"""The checkpoint that all processes go on from: the first one's, sent to those that don't see its disk."""

from pathlib import Path

from recipes.ranks.group import file_from_first, from_first, gathered
from recipes.ranks.place import is_alone, is_first
from recipes.training.checkpoints import SEAL_NAME


def checkpoint_for_all(checkpoint: Path | None, folder: Path) -> Path | None:
    """Return where a process finds the first one's checkpoint, None where it has none.

    Where any doesn't see it, its files are sent to all others, whose own `folder` they are written to.
    """
    if is_alone():
        return checkpoint
    place = from_first(checkpoint)
    if place is None:
        return None
    seal = from_first((place / SEAL_NAME).read_bytes() if is_first() else b"")
    if all(gathered(_is_there(place, seal))):
        return place
    files = from_first(sorted(file.name for file in place.iterdir()) if is_first() else [])
    own = folder / place.name
    own.mkdir(exist_ok=True)
    for name in files:
        content = file_from_first((place / name).read_bytes() if is_first() else b"")
        if not is_first():
            (own / name).write_bytes(content)
    return own


def _is_there(checkpoint: Path, seal: bytes) -> bool:
    file = checkpoint / SEAL_NAME
    return file.is_file() and file.read_bytes() == seal
