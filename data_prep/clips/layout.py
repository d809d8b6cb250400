"""How a data set lies in its folder: the published one's eight classes, or classes of one's own, and where cameras are.

Its flags are extract_frames.py's.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from data_prep.clips.archive import (
    DATASET_FOLDER,
    Source,
    entries_of,
    find_dataset,
    kind_of,
    list_clips,
    source_at,
    split_folders,
)
from data_prep.clips.cameras import NO_CAMERA, CameraRule, camera_rule
from data_prep.clips.classes import Classes, read_classes
from data_prep.clips.records import CONTENT, DAY, FOLDER, natural_key
from data_prep.clips.split import SPLIT_WAYS
from data_prep.disk.litter import is_unfinished
from data_prep.errors import InputError
from data_prep.files import from_root
from data_prep.labels import SPLITS, TRAIN


@dataclass(frozen=True)
class Layout:
    """A data set's root, its own classes, None for the published eight, and how cameras and splits are told."""

    root: Path
    classes: Classes | None = None
    camera: CameraRule = NO_CAMERA
    split_way: str = DAY

    def list_clips(self) -> tuple[list[Source], Counter[str]]:
        """Return every clip in natural order, and what was left, counted by suffix.

        Raises InputError as archive.list_clips does; with classes of one's own for a folder with clips that none names,
        where one of `train` and `test` is there alone, and where a camera is to be told and no path tells any.
        """
        sources, left = list_clips(self.root) if self.classes is None else _own_clips(self.root, self.classes)
        told = [self.camera.camera_of(source.path_in_split) for source in sources]
        if self.camera != NO_CAMERA and not any(told):
            raise InputError(
                f"no clip's path tells a camera, {sources[0].path} for one; look at --camera-level or --camera-pattern"
            )
        return sources, left


def add_layout_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a data set of one's own lies in its folder."""
    parser.add_argument(
        "--classes", metavar="FILE", help="YAML with a line a folder: SAFE or UNSAFE (default: the published eight)"
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--camera-level", type=int, metavar="N", help="the N-th folder below the root, or below train/, is the camera"
    )
    camera.add_argument(
        "--camera-pattern", metavar="REGEX", help="what this finds in a clip's path is the camera; its group, if any"
    )
    parser.add_argument(
        "--split-by",
        choices=SPLIT_WAYS,
        help=f"with --classes and no train/ and test/: whole days of a camera, or contents (default: {DAY})",
    )


def layout_of(arguments: argparse.Namespace, data: Path) -> Layout:
    """Return the layout that the flags describe, of the data set whose frames go to `data`.

    Raises InputError for flags that are unusable or without an effect, and where there is no data set.
    """
    dataset = from_root(arguments.dataset) if arguments.dataset else None
    camera = camera_rule(arguments.camera_level, arguments.camera_pattern)
    if arguments.classes is None:
        if arguments.split_by:
            raise InputError("--split-by is for a data set of your own, named by --classes; leave it out")
        return Layout(find_dataset(data, dataset), None, camera)
    classes = read_classes(from_root(arguments.classes))
    root = dataset or data / DATASET_FOLDER
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name the folder of your clips with --dataset")
    if data.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{data}, which gets the frames, lies in {root}, which holds the clips; name another --data")
    if arguments.split_by and split_folders(root):
        raise InputError(f"--split-by has no effect: {root} holds folders of the splits; leave it out")
    return Layout(root, classes, camera, arguments.split_by or DAY)


def _own_clips(root: Path, classes: Classes) -> tuple[list[Source], Counter[str]]:
    splits = split_folders(root)
    if len(splits) == 1:
        raise InputError(
            f"{root} holds the folder {next(iter(splits))} alone; have both {' and '.join(SPLITS)}, or neither, and "
            "clips are split by camera and day"
        )
    sources, left = [], Counter[str]()
    for split in splits or (None,):
        top = splits[split] if split else root
        for entry in _files_below(top):
            if source := _own_source(entry, root, top, split, classes):
                sources.append(source)
            else:
                left[kind_of(entry)] += 1
    if splits:
        beside = [entry for entry in entries_of(root) if entry not in splits.values()]
        left.update("folder beside train and test" if entry.is_dir() else kind_of(entry) for entry in beside)
    if not sources:
        raise InputError(f"no clips found: {root} holds no .mp4 file in any folder")
    return sorted(sources, key=lambda source: natural_key(source.path)), left


def _files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield what is no folder anywhere below one, in natural order. Links that lead round end there."""
    if (real := folder.resolve()) in above:
        return
    for entry in entries_of(folder):
        if entry.is_dir() and not is_unfinished(entry.name):
            yield from _files_below(entry, above | {real})
        else:
            yield entry


def _own_source(entry: Path, root: Path, top: Path, split: str | None, classes: Classes) -> Source | None:
    """Return a file as a clip of its folder's class, None where it is none.

    Raises InputError for a clip whose folder no line of the classes names.
    """
    if entry.suffix.casefold() != ".mp4" or is_unfinished(entry.name):
        return None
    folder = PurePosixPath(entry.parent.relative_to(top).as_posix())
    found = classes.of_folder(folder)
    if found is None:
        raise InputError(classes.missing(folder))
    source = source_at(entry, root, split or TRAIN, found)
    return source and replace(source, split_from=FOLDER if split else CONTENT)
