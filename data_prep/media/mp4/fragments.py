"""Which part of a fragmented mp4 is whole.

FFmpeg opens no clip of which one fragment's header is torn or damaged, and stops in silence at bytes that are no box. A
recorder that loses power leaves either; what it wrote before is as good as ever.
"""

import os
import struct
import weakref
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, replace
from io import SEEK_CUR, SEEK_END, SEEK_SET
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Self

from data_prep.media.mp4.boxes import NO_BOX, Box, boxes, fields_of, find_boxes, track_numbers

_KINDS = set(b"ftyp styp moov moof mdat sidx ssix prft emsg free skip wide uuid meta udta pdin".split())
_NO_FRAMES = 0x10000  # a `tfhd` box's flag
# What a flag of a `trun` box adds to its fixed fields, in bytes, and to each frame's.
_TRUN = {0x1: 4, 0x4: 4}
_TRUN_FRAME = {0x100: 4, 0x200: 4, 0x400: 4, 0x800: 4}


@dataclass(frozen=True)
class Part:
    """The first `end` bytes of a file of `size`, without the fragments whose headers start at `hidden`.

    `fragments` are the starts of the others, None in a clip that isn't made of fragments; `faults` says in words what
    is left out or missing.
    """

    size: int
    end: int
    fragments: tuple[int, ...] | None = None
    hidden: tuple[int, ...] = ()
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return not self.hidden and self.end == self.size

    def before(self, fragment: int) -> Self:
        """Return the part that ends before a fragment."""
        return replace(
            self,
            end=fragment,
            fragments=tuple(start for start in self.fragments or () if start < fragment),
            faults=self.faults + Counter({"bytes from a damaged fragment on": self.size - fragment}),
        )


class PartOfFile:
    """A part of a file, as av.open takes a file; a hidden fragment's header reads as one of free space.

    Raises OSError where the file cannot be read.
    """

    def __init__(self, path: Path, part: Part) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)  # av closes no file that it was given
        self._part = part
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the part's end."""
        content = bytearray(os.pread(self._descriptor, max(0, min(size, self._part.end - self._at)), self._at))
        hidden = self._part.hidden
        for start in hidden[bisect_left(hidden, self._at - 7) : bisect_left(hidden, self._at + len(content))]:
            for offset, letter in enumerate(b"free", start + 4 - self._at):
                if 0 <= offset < len(content):
                    content[offset] = letter
        self._at += len(content)
        return bytes(content)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Go to a byte and return its number."""
        self._at = max(0, offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._part.end}[whence])
        return self._at

    def tell(self) -> int:
        """Return the number of the next byte."""
        return self._at


def readable_part(file: BinaryIO) -> Part:
    """Return the part of an mp4 that FFmpeg reads to its end: all of it, unless it is made of fragments.

    A fragment with a damaged header is left out, those after it are kept if each says when it begins. Torn frames are
    no matter of this: the clip's index tells them.
    """
    size = file.seek(0, SEEK_END)
    found = list(boxes(file, 0, size))
    headers = [number for number, box in enumerate(found) if box.kind == b"moov"]
    if not headers or not _is_fragmented(file, found):
        behind = min(len(headers), [box.kind for box in found].count(b"ftyp")) - 1  # clips that were joined by cat
        return Part(size, size, faults=Counter({"further clips behind the first": behind} if behind > 0 else {}))
    end, fault = _whole_boxes(file, found[headers[0] + 1 :], size)
    missing = max(size if fault else found[-1].end, _end_by_index(file, found)) - size
    faults = Counter({fault: size - end} if fault else {}) + Counter({"bytes missing at the end": missing})
    fragments = [box for box in found if box.kind == b"moof" and box.end <= end]
    tracks = track_numbers(file, found[headers[0]])
    sound = [box for box in fragments if _is_sound(file, box, tracks)]
    damaged = sorted({box.start for box in fragments} - {box.start for box in sound})
    if damaged and not _have_times(file, [box for box in sound if box.start > damaged[0]]):
        return Part(size, end, tuple(box.start for box in sound)).before(damaged[0])
    # A fragment's header whose name is damaged is passed over as a box of an unknown kind.
    nameless = sum(box.kind == b"mdat" and before.kind not in _KINDS for before, box in pairwise(found))
    faults += Counter({"damaged fragments": len(damaged) + nameless})
    return Part(size, end, tuple(box.start for box in sound), tuple(damaged), faults)


def _is_fragmented(file: BinaryIO, found: list[Box]) -> bool:
    kinds = {box.kind for box in found}
    return b"moof" in kinds or any(find_boxes(file, box, "mvex") for box in found if box.kind == b"moov")


def _whole_boxes(file: BinaryIO, found: list[Box], size: int) -> tuple[int, str | None]:
    """Return where the whole boxes end and what follows them; torn frames count as whole, for their sizes are known."""
    for box in found:
        if size - box.start < 8:
            return box.start, "bytes of a torn fragment at the end"
        if box.kind == NO_BOX or not box.kind.isascii() or not box.kind.decode().isprintable():
            if _is_zeros(file, box.start, size):
                return box.start, "bytes of zeros after the last fragment"
            return box.start, "bytes that are no fragment at the end"
        if box.end > size and box.kind != b"mdat":
            what = "fragment" if box.kind == b"moof" else f"{box.kind.decode()} box"
            return box.start, f"bytes of a torn {what} at the end"
    return size, None


def _end_by_index(file: BinaryIO, found: list[Box]) -> int:
    """Return where the fragments end that the clip's indexes of them (`sidx`) name, 0 without one."""
    ends = [0]
    for box in found:
        fields = fields_of(file, box) if box.kind == b"sidx" else b""
        form, at = (">QQHH", 12) if fields[:1] == b"\1" else (">IIHH", 12)
        if len(fields) >= at + struct.calcsize(form):
            _, first, _, count = struct.unpack_from(form, fields, at)
            sizes = fields[at + struct.calcsize(form) :]
            named = min(count, len(sizes) // 12)
            ends.append(
                box.end + first + sum(struct.unpack_from(">I", sizes, 12 * i)[0] & 2**31 - 1 for i in range(named))
            )
    return max(ends)


def _is_zeros(file: BinaryIO, start: int, end: int) -> bool:
    file.seek(start)
    while start < end:
        content = file.read(min(2**20, end - start))
        if not content or content.count(0) < len(content):
            return False
        start += len(content)
    return True


def _have_times(file: BinaryIO, fragments: list[Box]) -> bool:
    """Say whether there are any fragments, and each states when it begins."""
    tracks = [traf for box in fragments for traf in find_boxes(file, box, "traf")]
    return bool(tracks) and all(find_boxes(file, traf, "tfdt") for traf in tracks)


def _is_sound(file: BinaryIO, moof: Box, tracks: set[int | None]) -> bool:
    """Say whether a fragment's header can be read to its end and is about the clip's tracks."""
    found = list(boxes(file, moof.body, moof.end))
    about = [box for box in found if box.kind == b"traf"]
    return _fill(found, moof) and bool(about) and all(_is_sound_track(file, box, tracks) for box in about)


def _is_sound_track(file: BinaryIO, traf: Box, tracks: set[int | None]) -> bool:
    found = list(boxes(file, traf.body, traf.end))
    headers = [_flags_and_number(file, box) for box in found if box.kind == b"tfhd"]
    if not _fill(found, traf) or len(headers) != 1 or headers[0] is None:
        return False
    flags, track = headers[0]
    runs = [box for box in found if box.kind == b"trun"]
    return (
        track in tracks and (bool(runs) or bool(flags & _NO_FRAMES)) and all(_is_sound_run(file, box) for box in runs)
    )


def _fill(found: list[Box], within: Box) -> bool:
    return bool(found) and found[-1].end == within.end and all(box.kind.strip(b"\0") for box in found)


def _is_sound_run(file: BinaryIO, trun: Box) -> bool:
    """Say whether a `trun` box holds as many frames as it says, and any.

    A false number has FFmpeg leave out frames, or fill the memory.
    """
    header = _flags_and_number(file, trun)
    if header is None:
        return False
    flags, frames = header
    fixed = 8 + sum(size for flag, size in _TRUN.items() if flags & flag)
    each = sum(size for flag, size in _TRUN_FRAME.items() if flags & flag)
    return frames > 0 and trun.end - trun.body == fixed + frames * each


def _flags_and_number(file: BinaryIO, box: Box) -> tuple[int, int] | None:
    """Return the flags of a `tfhd` or `trun` box and the number after them: the track's, or how many frames."""
    fields = fields_of(file, box)[:8]
    if len(fields) < 8:
        return None
    flags, number = struct.unpack(">II", fields)
    return flags & 0xFFFFFF, number
