"""Names of the folders that clips' frames lie in: each clip's own on any file system, and the same in every run."""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from data_prep.clips.archive import Source
from data_prep.disk.litter import is_litter, is_unfinished

MOST_BYTES = 143  # of a name on eCryptfs, which encrypted shares of a NAS are; most file systems take 255
_DIGEST_CHARACTERS = 8

# What Windows, and so SMB, NTFS and exFAT, refuse in names, and what would break a line in two.
_REFUSED = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029<>:"/\\|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def folder_key(name: str) -> str:
    """Return what is equal for names that are one folder on some file system: they differ in case or Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def folder_name(name: str) -> str:
    """Return a name, or one like it that a folder can have on every file system.

    Characters that one refuses become `_`; one that is too long is cut and ends with a digest of all of it.
    """
    plain = _REFUSED.sub("_", name).rstrip(". ")
    if not plain or _DEVICES.fullmatch(plain) or is_litter(plain) or is_unfinished(plain):
        plain = f"_{plain}_"
    if len(plain.encode()) <= MOST_BYTES:
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    kept = plain.encode()[: MOST_BYTES - len(f"__{digest}")].decode("utf-8", "ignore")
    return f"{kept}__{digest}"


def _free_name(path: PurePosixPath, split: str, taken: set[tuple[str, str]]) -> str:
    longer = f"{path.parent.name}__{path.stem}"
    numbered = (f"{longer}__{number}" for number in itertools.count(2))
    names = map(folder_name, itertools.chain((path.stem, longer), numbered))
    return next(name for name in names if (split, folder_key(name)) not in taken)


def assign_video_ids(sources: Iterable[Source], known: dict[str, str]) -> dict[str, str]:
    """Return the video_id of each source by its path: a folder's name that no other clip of the split has.

    Two names are one where they differ in case or in Unicode's normal forms alone. A path in `known` keeps its
    video_id, unless an earlier one has it. Any other is called by its file stem or, where a clip of the same split has
    that name already, `<class folder>__<stem>`, as `folder_name` writes them. `sources` must be in natural order: the
    later clip yields.
    """
    sources = list(sources)
    ids: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    for source in sources:
        name = known.get(source.path)
        if name is not None and (source.split, folder_key(name)) not in taken:
            ids[source.path] = name
            taken.add((source.split, folder_key(name)))
    for source in sources:
        if source.path not in ids:
            ids[source.path] = _free_name(PurePosixPath(source.path), source.split, taken)
            taken.add((source.split, folder_key(ids[source.path])))
    return ids
