"""Walking an mp4's boxes on disk: whatever the bytes, it ends, and reads no more than the headers.

Sizes and fields are those of ISO/IEC 14496-12, and of QuickTime files where those differ in nothing that is read here.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_HEADER, _LONG_SIZE = struct.Struct(">I4s"), struct.Struct(">Q")
NO_BOX = b""  # bytes that cannot be the header of a box
_FURTHEST = 2**63 - 1  # byte that a file can be asked for
MAX_BOXES = 1_000_000  # of one level; a day of fragments has a quarter of it
MAX_FIELDS_BYTES = 2**20  # what is read of one box's content
_AFTER_TIMES = {0: 12, 1: 20}  # by version: where tkhd, mvhd and mdhd hold the number after two times


class Box(NamedTuple):
    """A box whose header stands at byte `start`, whose content at `body`; `end` may lie beyond what there is."""

    kind: bytes
    start: int
    body: int
    end: int


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two bytes of a file.

    The last one may be torn, that is, end beyond `end`. What cannot be a box's header is yielded as a box of the kind
    NO_BOX that takes the rest.
    """
    end = min(end, _FURTHEST)
    for _ in range(MAX_BOXES):
        if start >= end:
            return
        box = _box_at(file, start, end)
        yield box
        start = box.end
    if start < end:
        yield Box(NO_BOX, start, start, end)


def _box_at(file: BinaryIO, start: int, end: int) -> Box:
    file.seek(start)
    header = file.read(min(16, end - start))
    if len(header) < 8:
        return Box(NO_BOX, start, start, end)
    size, kind = _HEADER.unpack_from(header)
    body = start + 8
    if size == 1:
        body = start + 16
        size = _LONG_SIZE.unpack_from(header, 8)[0] if len(header) == 16 else 0
    elif size == 0:  # to the end
        size = end - start
    return Box(NO_BOX, start, start, end) if size < body - start else Box(kind, start, body, start + size)


def find_boxes(file: BinaryIO, within: Box, path: str) -> list[Box]:
    """Return the boxes that a path such as "mdia/minf" leads to below a box, in the file's order."""
    found = [within]
    for kind in path.encode().split(b"/"):
        found = [inner for box in found for inner in boxes(file, box.body, box.end) if inner.kind == kind]
    return found


def fields_of(file: BinaryIO, box: Box) -> bytes:
    """Return a box's content, the version of a full box first; of a large one only its beginning."""
    file.seek(box.body)
    return file.read(min(box.end - box.body, MAX_FIELDS_BYTES))


def _number_after_times(file: BinaryIO, box: Box) -> int | None:
    fields = fields_of(file, box)
    at = _AFTER_TIMES.get(fields[0] if fields else 0, 12)
    return struct.unpack_from(">I", fields, at)[0] if len(fields) >= at + 4 else None


def track_box(file: BinaryIO, moov: Box, track: int) -> Box | None:
    """Return the `trak` box of the track that bears a number, None for none."""
    return next((trak for trak in find_boxes(file, moov, "trak") if _number_of(file, trak) == track), None)


def track_numbers(file: BinaryIO, moov: Box) -> set[int | None]:
    """Return the numbers of a clip's tracks, None for one whose number cannot be read."""
    return {_number_of(file, trak) for trak in find_boxes(file, moov, "trak")}


def _number_of(file: BinaryIO, trak: Box) -> int | None:
    headers = find_boxes(file, trak, "tkhd")
    return _number_after_times(file, headers[0]) if headers else None


def ticks_a_second(file: BinaryIO, within: Box, path: str) -> int | None:
    """Return the time scale that the first `mvhd` or `mdhd` box at a path states, None without one or for zero."""
    headers = find_boxes(file, within, path)
    return (_number_after_times(file, headers[0]) or None) if headers else None


def sample_entries(file: BinaryIO, trak: Box) -> list[bytes]:
    """Return the four letters of each sample entry of a track."""
    descriptions = find_boxes(file, trak, "mdia/minf/stbl/stsd")
    return [entry.kind for box in descriptions for entry in boxes(file, box.body + 8, box.end)]
