"""A frame among its neighbours: the seconds of its clip before and after it, as small pictures. Imports no torch."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from data_prep.media.images import read_image
from recipes.report.look import thumbnail

NEIGHBOURS = 2  # on either side
STRIP_SIDE = 160  # pixels


class ClipsOfRows:
    """The rows of a split by clip, in the order of their samples; each array-like has length n."""

    def __init__(self, clips: Sequence[str], samples: Sequence[int]) -> None:
        self.samples = samples
        self._rows: dict[str, list[int]] = defaultdict(list)
        for row in sorted(range(len(clips)), key=lambda row: samples[row]):
            self._rows[clips[row]].append(row)
        self._clips = clips

    def around(self, row: int, neighbours: int = NEIGHBOURS) -> list[int]:
        """Return the rows of a frame and of so many of its clip's frames before and after it, fewer at the ends."""
        rows = self._rows[self._clips[row]]
        at = rows.index(row)
        return rows[max(0, at - neighbours) : at + neighbours + 1]

    def of(self, clip: str) -> list[int]:
        """Return a clip's rows."""
        return self._rows[clip]


def strip(rows: Any, shown: Sequence[int], samples: Sequence[int]) -> list[dict[str, Any]]:
    """Return of each row that is shown its number, its `sample` and its small `picture`, a data URI."""
    return [
        {"row": row, "sample": samples[row], "picture": thumbnail(read_image(rows[row]["image"]["bytes"]), STRIP_SIDE)}
        for row in shown
    ]
