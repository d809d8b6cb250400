"""What file managers, NAS, sync tools and file systems leave in folders, told by name alone: it may be unreadable."""

import re
from pathlib import Path

_NAMES = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler", "recycled"),
    *("system volume information", "icon\r", "__macosx", "network trash folder", "temporary items"),
    *("lost+found", "lost.dir", "#recycle", "#snapshot", "~snapshot"),
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin"),
}
_BEGINNINGS = (".", "~$", "@syno")  # the first hides .DS_Store, ._*, .nfs*, .Trash*, .Spotlight-V100, .sync*, .snapshot
_ENDINGS = (":zone.identifier", "@synoeastream", "@synoresource")  # what was a file's second stream elsewhere
_FOUND_BY_CHKDSK = re.compile(r"found\.\d{3}")
_UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".opdownload", ".download", ".aria2", ".!ut", ".tmp")


def is_unfinished(name: str) -> bool:
    """Say whether a file or folder is called as downloads are until they are whole."""
    return name.casefold().endswith(_UNFINISHED)


def is_litter(name: str) -> bool:
    """Say whether a file or folder of this name is nobody's data: hidden, or left there by a system."""
    name = name.casefold()
    is_named = name in _NAMES or bool(_FOUND_BY_CHKDSK.fullmatch(name))
    return is_named or name.startswith(_BEGINNINGS) or name.endswith(_ENDINGS)


def without_litter(folder: Path) -> list[Path]:
    """Return what a folder holds, in any order, without litter. Raises OSError where it may not be read."""
    return [path for path in folder.iterdir() if not is_litter(path.name)]
