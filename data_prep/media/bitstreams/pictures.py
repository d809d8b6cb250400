"""Reading packets' pictures without decoding them, alike for every codec: what is missing, and in what order.

A lost picture is noticed by what needed it (`Picture.missing`), or by the hole that it leaves among the numbers of the
others (`DisplayOrder.holes`); many leave both. What each codec's headers can't tell is said in its module.
"""

from collections import Counter
from collections.abc import Mapping
from heapq import heappop, heappush, heappushpop
from typing import Protocol

from data_prep.media.bitstreams.av1 import Av1Reader, obus_of_configuration
from data_prep.media.bitstreams.coded_picture import Picture
from data_prep.media.bitstreams.h264 import H264Reader
from data_prep.media.bitstreams.hevc import HevcReader
from data_prep.media.bitstreams.mpeg4 import Mpeg4Reader
from data_prep.media.bitstreams.nal_units import avc_configuration, hevc_configuration

_AV1_DECODERS = {"av1", "libdav1d", "libaom-av1"}
_EVEN_SHARE = 0.9  # of all steps are alike where numbers count as even
_DEEPEST_REORDER = 32  # pictures; the standards allow 16
_LONGEST_STEP = 1024  # between pictures' numbers; a longer one comes of a damaged number


class PictureReader(Protocol):
    """Reads one stream's packets, each an mp4 sample, in order of decoding. Never raises, whatever the bytes."""

    def read(self, packet: memoryview, new_extradata: bytes | None = None) -> Picture | None:
        """Return a packet's picture, None where it holds none or isn't made of whole units.

        `new_extradata` is the decoder configuration that is in force from this packet on.
        """


def picture_reader(codec_name: str, extradata: bytes | None) -> PictureReader | None:
    """Return a reader for a stream as mp4 holds it, by its decoder's name and configuration; None for any other."""
    if codec_name == "h264" and (avc := avc_configuration(extradata)):
        return H264Reader(avc)
    if codec_name == "hevc" and (hvc := hevc_configuration(extradata)):
        return HevcReader(hvc)
    if codec_name in _AV1_DECODERS and (obus := obus_of_configuration(extradata)) is not None:
        return Av1Reader(obus)
    if codec_name == "mpeg4":
        return Mpeg4Reader(extradata or b"")
    return None


class DisplayOrder:
    """Puts the orders of pictures, as they come in order of decoding, into that of presentation, and counts steps."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        self._waiting: list[tuple[int, int]] = []
        self._last: tuple[int, int] | None = None

    def add(self, order: tuple[int, int]) -> None:
        """Take in the next picture's order."""
        if len(self._waiting) < _DEEPEST_REORDER:
            heappush(self._waiting, order)
        else:
            self._show(heappushpop(self._waiting, order))

    def _show(self, order: tuple[int, int]) -> None:
        if self._last is not None and self._last[0] == order[0]:
            step = order[1] - self._last[1]
            self._steps[step if step <= _LONGEST_STEP else 0] += 1
        self._last = order

    def holes(self) -> int:
        """Return how many pictures are missing between those that were added, as far as their numbers tell."""
        while self._waiting:
            self._show(heappop(self._waiting))
        return holes(self._steps)


def holes(steps: Mapping[int, int]) -> int:
    """Return how many numbers are left out of a row that is otherwise even.

    `steps` counts how often each difference between neighbours occurs. A row is even where nine of ten are alike; a
    hole is a multiple of that difference. In a row that isn't even nobody can tell: 0.
    """
    usual = max(steps, key=lambda step: steps[step], default=0)
    if usual <= 0 or steps[usual] < _EVEN_SHARE * sum(steps.values()):
        return 0
    return sum((step // usual - 1) * count for step, count in steps.items() if step > usual and step % usual == 0)
