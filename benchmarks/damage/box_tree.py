"""The boxes that an mp4 is made of (ISO/IEC 14496-12), as a tree that can be changed and written again."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

# Boxes that hold boxes, and how many bytes of their own come before those.
HOLDERS = {
    **dict.fromkeys((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"mvex", b"moof", b"traf"), 0),
    b"stsd": 8,
    **dict.fromkeys((b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"mp4v"), 78),
    b"mp4a": 28,
}


@dataclass
class Box:
    """A box: its four letters, the bytes of its own, and the boxes within."""

    kind: bytes
    body: bytes = b""
    inner: list["Box"] = field(default_factory=list)

    def written(self) -> bytes:
        """Return the whole box, with sizes that are right."""
        inside = b"".join(each.written() for each in self.inner)
        return struct.pack(">I4s", 8 + len(self.body) + len(inside), self.kind) + self.body + inside

    def walk(self) -> Iterator["Box"]:
        """Yield this box and all within it."""
        yield self
        for each in self.inner:
            yield from each.walk()

    def first(self, *path: bytes) -> "Box":
        """Return the first box at a path of kinds below this one. Raises StopIteration for none."""
        box = self
        for kind in path:
            box = next(each for each in box.inner if each.kind == kind)
        return box


def read_boxes(content: bytes) -> list[Box]:
    """Return the boxes of a sound mp4 of less than 4 GiB."""
    boxes, position = [], 0
    while position + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        body = content[position + 8 : position + size]
        own = HOLDERS.get(kind)
        boxes.append(Box(kind, body) if own is None else Box(kind, body[:own], read_boxes(body[own:])))
        position += size
    return boxes
