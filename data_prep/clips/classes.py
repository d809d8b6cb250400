"""The classes of a data set of one's own: which folders they are and what each is, from a YAML file."""

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from data_prep.errors import InputError
from data_prep.labels import LABELS, SAFE, SOURCE_CLASSES, UNSAFE, fold_name

_FORM = f"a line is 'folder: {UNSAFE}', or 'folder: {{label: {SAFE}, description: in a few words}}'"


@dataclass(frozen=True)
class OwnClass:
    """A line of a classes file: the folders that it names, as written there, their label, and a description."""

    folder: str
    label: str
    description: str | None = None

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The names of folders that it is made of, one below the other, folded."""
        return tuple(fold_name(part) for part in self.folder.split("/"))

    @property
    def is_pattern(self) -> bool:
        """Whether it holds `*` or `?`, which stand for any text and for any character within one folder's name."""
        return bool(set("*?") & set(self.folder))

    def names(self, folders: tuple[str, ...]) -> bool:
        """Whether it names one of these folders, folded, or some that follow each other."""
        length = len(self.parts)
        runs = (folders[start : start + length] for start in range(len(folders) - length + 1))
        return any(all(map(_fits, self.parts, run)) for run in runs)


def _fits(pattern: str, name: str) -> bool:
    expression = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    return bool(re.fullmatch(expression, name))


@dataclass(frozen=True)
class Classes:
    """The lines of a classes file, and the file's name."""

    name: str
    lines: tuple[OwnClass, ...]

    def of_folder(self, folder: PurePosixPath) -> OwnClass | None:
        """Return the class of the clips in a folder, given from the data set's root or from `train` or `test`.

        A line names a folder on the way down to them, whatever its spelling in case, spaces, hyphens and underscores.
        Of several lines that do, one without `*` and `?` goes before a pattern, and one of more folders before one of
        fewer. None where no line does. Raises InputError where two are left.
        """
        folders = tuple(map(fold_name, folder.parts))
        found = [line for line in self.lines if line.names(folders)]
        if not found:
            return None
        best = [line for line in found if _rank(line) == max(map(_rank, found))]
        if len(best) > 1:
            raise InputError(
                f"folder {str(folder)!r} is named by two lines of {self.name}, {best[0].folder!r} and "
                f"{best[1].folder!r}; make one of them longer, with the folder above it"
            )
        return best[0]

    def missing(self, folder: PurePosixPath) -> str:
        """Say which line a folder that no line names wants."""
        if not folder.parts:
            return f"clips lie in no folder that a line of {self.name} could name; put them into one, by class"
        key = folder.name if re.fullmatch(r"[^\W\d_][\w .-]*", folder.name) else json.dumps(folder.name)
        return (
            f"folder {str(folder)!r} is named by no line of {self.name}; add one: {key}: {UNSAFE} (or {SAFE}), and "
            "run the command again"
        )


def _rank(line: OwnClass) -> tuple[bool, int]:
    return not line.is_pattern, len(line.parts)


def read_classes(path: Path) -> Classes:
    """Read a classes file. Raises InputError where it is missing or a line of it says nothing usable."""
    name = path.name
    try:
        lines = yaml.load(path.read_text(encoding="utf-8-sig"), _EachKeyOnce)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"--classes {path}: no such file; {_FORM}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--classes {path}: not YAML ({error})") from None
    if not isinstance(lines, dict) or not lines:
        raise InputError(f"--classes {path}: holds no line; {_FORM}")
    classes = [_checked(key, value, name) for key, value in lines.items()]
    seen: dict[tuple[str, ...], OwnClass] = {}
    for each in classes:
        if (first := seen.setdefault(each.parts, each)) is not each:
            raise InputError(f"{name}: {first.folder!r} and {each.folder!r} name the same folder; remove one")
    if missing := [label for label in LABELS if label not in {each.label for each in classes}]:
        raise InputError(f"{name}: no line is {missing[0]}; both {' and '.join(LABELS)} are needed")
    return Classes(name, tuple(classes))


def _checked(key: Any, value: Any, name: str) -> OwnClass:
    if not isinstance(key, str):
        raise InputError(f"{name}: {key!r} isn't read as a name; put it into quotes")
    given = value if isinstance(value, dict) else {"label": value}
    label, description = given.get("label"), given.get("description")
    if label not in LABELS:
        raise InputError(f"{name}: {key!r} is {label!r}, which is not one of {', '.join(LABELS)}; {_FORM}")
    if unknown := sorted(map(str, given.keys() - {"label", "description"})):
        raise InputError(f"{name}: {key!r} has {unknown[0]!r}, which isn't known; {_FORM}")
    if description is not None and not (isinstance(description, str) and description.strip()):
        raise InputError(f"{name}: {key!r} has the description {description!r}, which is no text; {_FORM}")
    found = OwnClass(key.strip(), label, description and " ".join(description.split()))
    if not all(found.parts):
        raise InputError(f"{name}: {key!r} names no folder; {_FORM}")
    for known in SOURCE_CLASSES:
        if found.parts == (known.folder,) and label != known.label:
            raise InputError(f"{name}: {key!r} is {label} here and {known.label} in the published data set; rename it")
    return found


class _EachKeyOnce(yaml.SafeLoader):
    """YAML without tags, in which no key stands twice: the first of two would be dropped in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
            raise yaml.YAMLError(f"{twice[0]!r} stands twice")
        return super().construct_mapping(node, deep)
