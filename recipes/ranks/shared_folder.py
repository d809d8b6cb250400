"""Which processes of a job see the same folder: those of one machine, or of all where a disk is shared."""

import uuid
from pathlib import Path

from recipes.ranks.group import gathered
from recipes.ranks.place import here, is_alone


def sharers(folder: Path) -> list[int]:
    """Return the numbers of the processes that see this one's folder, itself included, in order.

    All processes have to ask at once, each for its own; a file of each lies there meanwhile.
    """
    if is_alone():
        return [here().rank]
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".seen-by-{uuid.uuid4().hex}"
    mark.touch()
    marks = gathered(mark.name)
    found = [rank for rank, name in enumerate(marks) if (folder / name).exists()]
    gathered(None)
    mark.unlink()
    return found
