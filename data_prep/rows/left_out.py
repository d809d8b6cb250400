"""What a list names that is to be left out of training: frames and clips, each with a reason."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.clips.jsonl import CLIPS_FILE
from data_prep.clips.records import FRAMES_FOLDER, Clip
from data_prep.errors import InputError, printable
from data_prep.files import read_text
from data_prep.labels import SPLITS, TEST

NO_REASON = "no reason given"
_OF_A_JOINED_FOLDER = re.compile(rf"[^/]+/{FRAMES_FOLDER}/({'|'.join(SPLITS)})/")


@dataclass(frozen=True)
class LeftOut:
    """One line of a list: a frame or a clip as it was named there, its frames' images, and why it is left out."""

    name: str
    images: tuple[str, ...]
    reason: str


def read_left_out(file: Path, clips: Iterable[Clip], folder: str) -> list[LeftOut]:
    """Read a list of frames and clips, one a line: its name and, after a tab, the reason.

    A frame goes by its image, as in train.jsonl; a clip by the folder of its frames, or by its path in clips.jsonl. Of
    several data folders that were joined, these begin with the name of each: `folder` is this one's, and what begins
    with another's is passed over, aloud. Of a name that stands there twice the first holds. Raises InputError, naming
    file and line, for a name that is none of these, and for one of the test split.
    """
    known = _known_names(clips)
    found: dict[str, LeftOut] = {}
    elsewhere: list[str] = []
    for number, written, reason in _lines_of(file):
        name = written if written in known else written.removeprefix(f"{folder}/")
        if name in known:
            clip, images = known[name]
            if clip.split == TEST:
                raise InputError(f"{file}:{number}: {name!r} is of the test split, which stays whole; remove the line")
            found.setdefault(name, LeftOut(name, images, reason or NO_REASON))
        elif _OF_A_JOINED_FOLDER.match(name):
            elsewhere.append(name)
        else:
            raise InputError(
                f"{file}:{number}: {name!r} is no frame or clip of {CLIPS_FILE}; expected frames/train/<safe|unsafe>/"
                "<video_id>, or such a folder's <sample>.jpg, and a tab before the reason"
            )
    if elsewhere:
        said = f"lines of other data folders: {len(elsewhere)}, the first {printable(elsewhere[0])!r}"
        print(f"{file}: {said}; give the list to build_jsonl.py for each of them", file=sys.stderr)
    return list(found.values())


def _lines_of(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield number, name and reason of each line that is neither empty nor begins with #."""
    for number, line in enumerate(read_text(file, "--leave-out").split("\n"), start=1):
        name, _, reason = (part.strip() for part in line.partition("\t"))
        if name and not name.startswith("#"):
            yield number, name, reason


def _known_names(clips: Iterable[Clip]) -> dict[str, tuple[Clip, tuple[str, ...]]]:
    known: dict[str, tuple[Clip, tuple[str, ...]]] = {}
    for clip in clips:
        images = tuple(clip.frame_paths)
        known |= {image: (clip, (image,)) for image in images}
        known |= dict.fromkeys((clip.folder, clip.path), (clip, images))
    return known


def left_out_in_words(left_out: Sequence[LeftOut], file: Path, rows_left: int) -> str:
    """Say how many rows a list has left out of training, and why, a line a reason."""
    reasons = Counter[str]()
    seen: set[str] = set()
    for each in left_out:
        reasons[each.reason] += len(set(each.images) - seen)
        seen.update(each.images)
    lines = [f"{len(seen)} frames left out by {file.name}, {rows_left} rows left; labels and test are as they were"]
    lines += [f"  {count}: {reason}" for reason, count in reasons.most_common()]
    return "\n".join(map(printable, lines))
