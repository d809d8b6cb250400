"""Paths that `datasets` takes for what they are: it reads patterns, and fsspec chains of URLs, in names of folders."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

_PREFIX = "plain-paths-"  # of the folders that hold links
_READ_OTHERWISE = re.compile(r"[*?\[\]{}!:#%\\]")


def plain_path(folder: Path) -> Path:
    """Return a path of the folder, which is made where it is missing, without a character that means something.

    That is its own path or one through a link among the temporary files of this user, the same in every process:
    `datasets` names its locks by it.
    """
    folder = folder.absolute()
    if not _READ_OTHERWISE.search(str(folder)):
        return folder
    folder.mkdir(parents=True, exist_ok=True)  # nothing could be made through a link that leads nowhere
    link = _links() / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink():
        staged = Path(tempfile.mkdtemp(dir=link.parent)) / link.name
        staged.symlink_to(folder, target_is_directory=True)
        staged.replace(link)
        staged.parent.rmdir()
    return link


def _links() -> Path:
    """Return a folder that nobody else can put links into."""
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix=_PREFIX))
    return folder
