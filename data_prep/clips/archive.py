"""The data set as it was published: where its folder is, and which clips lie in it."""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.clips.classes import OwnClass
from data_prep.clips.records import FOLDER, FRAMES_FOLDER, natural_key
from data_prep.disk.litter import is_unfinished, without_litter
from data_prep.errors import InputError
from data_prep.labels import SPLITS, SourceClass, fold_name, source_class_of_folder

DATASET_FOLDER = "Safe and Unsafe Behaviours Dataset"
_SEARCH_DEPTH = 3
_NEVER_SEARCHED = ("demo", FRAMES_FOLDER)
_LAYOUT = f"expected: {DATASET_FOLDER}/{{train,test}}/<class folder>/*.mp4"


@dataclass(frozen=True)
class Source:
    """A clip as found in the data set: `path` relative to its root, in POSIX form.

    `reason` says why it can't be read, where the folder's listing tells already. What isn't UTF-8 in the name of such
    a clip is escaped in `path`. Where no folder says what the split is, `split_from` isn't FOLDER, and `split` stands
    in for what the clip's content is still to tell.
    """

    path: str
    split: str
    source_class: SourceClass | OwnClass
    reason: str | None = None
    split_from: str = FOLDER

    @property
    def path_in_split(self) -> PurePosixPath:
        """The path below the split's folder, or below the data set's root where there is none."""
        path = PurePosixPath(self.path)
        return path.relative_to(path.parts[0]) if self.split_from == FOLDER else path


def entries_of(folder: Path) -> list[Path]:
    """Return what lies in a folder in natural order, without litter. Raises InputError where it may not be read."""
    try:
        return sorted(without_litter(folder), key=lambda child: natural_key(child.name))
    except PermissionError:
        raise InputError(f"{folder}: may not be read; correct its permissions") from None


def _subfolders(folder: Path) -> list[Path]:
    return [child for child in entries_of(folder) if child.is_dir()]


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of a root that are named train or test, by split. Raises InputError for two of one split."""
    found: dict[str, Path] = {}
    for folder in _subfolders(root):
        split = fold_name(folder.name)
        if split in SPLITS and split in found:
            raise InputError(f"{root} holds {split} twice: {found[split].name!r} and {folder.name!r}; merge them")
        if split in SPLITS:
            found[split] = folder
    return found


def _is_class_folder(folder: Path) -> bool:
    try:
        source_class_of_folder(folder.name)
    except InputError:
        return False
    return True


def _has_both_splits(folder: Path) -> bool:
    return folder.is_dir() and set(split_folders(folder)) == set(SPLITS)


def _roots_below(folder: Path, depth: int) -> Iterator[Path]:
    for child in _subfolders(folder):
        if child.name in _NEVER_SEARCHED:
            continue
        if _has_both_splits(child):
            splits = split_folders(child).values()
            if any(_is_class_folder(grandchild) for split in splits for grandchild in _subfolders(split)):
                yield child
        elif depth > 1:
            yield from _roots_below(child, depth - 1)


def find_dataset(data: Path, dataset: Path | None = None) -> Path:
    """Return the data set's root: the folder that holds `train` and `test`.

    That is `dataset`, by default `<data>/Safe and Unsafe Behaviours Dataset`; where it doesn't hold both splits, the
    one folder at most three levels below `dataset` (or `data`) that does. Raises InputError for none and for several.
    """
    first = dataset or data / DATASET_FOLDER
    if _has_both_splits(first):
        return first
    searched = dataset or data
    if not searched.is_dir():
        raise InputError(f"{searched}: no such folder; {_LAYOUT}; name another place with --dataset")
    roots = list(_roots_below(searched, _SEARCH_DEPTH))
    if not roots:
        raise InputError(
            f"no data set found: looked at {first} and {_SEARCH_DEPTH} levels below {searched}; {_LAYOUT}; "
            "name another place with --dataset"
        )
    if len(roots) > 1:
        raise InputError(f"several data sets found: {', '.join(map(str, roots))}; name the one you mean with --dataset")
    return roots[0]


def _in_utf8(relative: str) -> tuple[str, str | None]:
    """Return a path as UTF-8 can hold it, and why it can't be read by it, if so."""
    try:
        relative.encode()
    except UnicodeEncodeError:
        return os.fsencode(relative).decode("utf-8", "backslashreplace"), "its name is not UTF-8: rename the file"
    return relative, None


def source_at(path: Path, root: Path, split: str, source_class: SourceClass | OwnClass) -> Source | None:
    """Return a class folder's entry as a clip, None where it is none."""
    if path.suffix.casefold() != ".mp4":
        return None
    relative, reason = _in_utf8(path.relative_to(root).as_posix())
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
    except OSError as error:  # a link that leads nowhere or to itself; a file that vanished meanwhile
        reason = reason or f"cannot be read ({error.strerror})"
    return Source(relative, split, source_class, reason)


def kind_of(path: Path) -> str:
    """Say in a word what something is that is no clip."""
    with contextlib.suppress(OSError):  # whatever that is, it is no clip
        if path.is_file():
            return path.suffix or path.name
    return "folder or special file"


def list_clips(root: Path) -> tuple[list[Source], Counter[str]]:
    """Return every clip of the data set in natural order, and what was left, counted by suffix.

    A clip is a regular file with the suffix `.mp4`, in any case, directly in a class folder. Litter is passed over
    unseen. Raises InputError for a class folder that labels.py refuses or that may not be read, and where there is no
    clip at all.
    """
    sources, left = [], Counter[str]()
    for split, split_folder in split_folders(root).items():
        for entry in entries_of(split_folder):
            if is_unfinished(entry.name) or not entry.is_dir():
                left[entry.suffix or entry.name] += 1
                continue
            source_class = source_class_of_folder(entry.name)
            for path in entries_of(entry):
                if source := source_at(path, root, split, source_class):
                    sources.append(source)
                else:
                    left[kind_of(path)] += 1
    if not sources:
        raise InputError(f"no clips found: {root} holds no .mp4 file in a class folder; {_LAYOUT}")
    return sorted(sources, key=lambda source: natural_key(source.path)), left
