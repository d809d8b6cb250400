"""Which part of a fragmented mp4 is whole.

FFmpeg opens no clip of which one fragment's header is torn or damaged, and stops in silence at bytes that are no box. A
recorder that loses power leaves either; what it wrote before is as good as ever.
"""

import os
import struct
import weakref
from collections import Counter
from dataclasses import dataclass, field, replace
from io import SEEK_CUR, SEEK_END, SEEK_SET
from pathlib import Path
from typing import BinaryIO, Self

from data_prep.mp4_boxes import NO_BOX, Box, boxes, fields_of, find_boxes

MAX_HEADER_BYTES = 2**20  # of a fragment's header that is looked into; one of an hour has as much
# What a flag of a `tfhd` or `trun` box adds to its fixed fields, in bytes, and of `trun` to each frame's.
_TFHD = {0x1: 8, 0x2: 4, 0x8: 4, 0x10: 4, 0x20: 4}
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
        for start in self._part.hidden:
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
        return Part(size, size)
    end, fault = _whole_boxes(file, found[headers[0] + 1 :], size)
    missing = max(size if fault else found[-1].end, _end_by_index(file, found)) - size
    faults = Counter({fault: size - end} if fault else {}) + Counter({"bytes missing at the end": missing})
    fragments = [box for box in found if box.kind == b"moof" and box.end <= end]
    damaged = tuple(box.start for box in fragments if not _is_sound(file, box))
    sound = [box for box in fragments if box.start not in damaged]
    part = Part(size, end, tuple(box.start for box in sound), damaged, faults)
    if not damaged:
        return part
    if not _have_times(file, [box for box in sound if box.start > damaged[0]]):
        return Part(size, end, part.fragments).before(damaged[0])
    return replace(part, faults=faults + Counter({"damaged fragments": len(damaged)}))


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


def _is_sound(file: BinaryIO, moof: Box) -> bool:
    """Say whether a fragment's header can be read to its end."""
    tracks = list(boxes(file, moof.body, moof.end))
    if not _fill(tracks, moof) or not any(box.kind == b"traf" for box in tracks):
        return False
    return all(_is_sound_track(file, box) for box in tracks if box.kind == b"traf")


def _is_sound_track(file: BinaryIO, traf: Box) -> bool:
    found = list(boxes(file, traf.body, traf.end))
    if not _fill(found, traf) or [box.kind for box in found].count(b"tfhd") != 1:
        return False
    return all(_holds_its_fields(file, box) for box in found)


def _fill(found: list[Box], within: Box) -> bool:
    return bool(found) and found[-1].end == within.end and all(box.kind.strip(b"\0") for box in found)


def _holds_its_fields(file: BinaryIO, box: Box) -> bool:
    if box.kind not in (b"tfhd", b"trun"):
        return True
    fields = fields_of(file, box)
    if len(fields) < 8:
        return False
    flags, number = struct.unpack_from(">II", fields)
    flags &= 0xFFFFFF
    needed = 8 + sum(size for flag, size in (_TFHD if box.kind == b"tfhd" else _TRUN).items() if flags & flag)
    if box.kind == b"tfhd":
        return number > 0 and len(fields) >= needed  # the number is the track's
    frame = sum(size for flag, size in _TRUN_FRAME.items() if flags & flag)
    return box.end - box.body >= needed + frame * number
