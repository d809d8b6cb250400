"""What a clip's path says of where and when it was taken: its camera, by a folder's level or a pattern, and its day."""

import datetime
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_prep.errors import InputError

# A date as people and recorders write one, a time behind it or not: 2024-05-01, 2024/05/01, 20240501, 20240501093000.
_DATE = re.compile(
    r"(?<!\d)(20\d\d)([-_./]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?=\D|$|\d{6}(?:\d{3})?(?:\D|$))", re.ASCII
)


@dataclass(frozen=True)
class CameraRule:
    """Where a clip's path names its camera: the `level`-th folder, from 1, or what `pattern` finds in the path.

    One of both is given, or none.
    """

    level: int | None = None
    pattern: re.Pattern[str] | None = None

    def camera_of(self, path: PurePosixPath) -> str | None:
        """Return the camera of a clip by its path, from the data set's root or from `train` or `test`; None for none.

        Of a pattern with groups the one that is called `camera` is meant, or else the first.
        """
        if self.level is not None:
            folders = path.parts[:-1]
            return folders[self.level - 1].strip() or None if len(folders) >= self.level else None
        found = self.pattern.search(str(path)) if self.pattern else None
        if not (found and self.pattern):
            return None
        group = "camera" if "camera" in self.pattern.groupindex else min(1, self.pattern.groups)
        return (found[group] or "").strip() or None


NO_CAMERA = CameraRule()


def camera_rule(level: int | None, pattern: str | None) -> CameraRule:
    """Return the rule that the flags name. Raises InputError for a level below 1 and for what is no pattern."""
    if level is not None and level < 1:
        raise InputError(f"--camera-level {level}: the first folder below the data set's root is level 1")
    try:
        return CameraRule(level, re.compile(pattern) if pattern is not None else None)
    except re.error as error:
        raise InputError(f"--camera-pattern {pattern!r} is no regular expression ({error})") from None


def day_of(path: str) -> str | None:
    """Return the first date that a path holds, as 2024-05-01; None where it holds none."""
    for year, _, month, day in _DATE.findall(path):
        try:
            return datetime.date(int(year), int(month), int(day)).isoformat()
        except ValueError:  # 31 April
            continue
    return None
