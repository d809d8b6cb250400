"""Damage to an mp4's headers: sizes, counts and other numbers that break readers, random bytes, boxes gone."""

import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

from numpy.random import Generator

from benchmarks.damage.box_tree import HOLDERS, Box, read_boxes

EXTREMES = (0, 1, 2, 3, 7, 8, 255, 2**16 - 1, 2**16, 2**24 - 1, 2**31 - 2, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
STEPS = (1, -1, 2, -2, 8, -8)
DATA = (b"mdat", b"free")


@dataclass(frozen=True)
class Span:
    """Where a box lies in a file: its kind, first byte, where its own bytes end, and where it ends."""

    kind: bytes
    begins: int
    own_ends: int
    ends: int


def spans(content: bytes, begins: int = 0, ends: int | None = None) -> Iterator[Span]:
    """Yield every box of a sound mp4 but those of data, with those within it."""
    ends = len(content) if ends is None else ends
    while begins + 8 <= ends:
        size, kind = struct.unpack_from(">I4s", content, begins)
        own = HOLDERS.get(kind)
        if kind not in DATA:
            own_ends = begins + size if own is None else begins + 8 + own
            yield Span(kind, begins, own_ends, begins + size)
        if own is not None:
            yield from spans(content, begins + 8 + own, begins + size)
        begins += size


def damaged_header(content: bytes, rng: Generator) -> tuple[bytes, str]:
    """Return a copy of a sound mp4 with one to four things in its headers changed, and what was done, in words."""
    said = []
    if rng.random() < 0.15:
        content, words = _changed_tree(content, rng)
        said.append(words)
    places = list(spans(content))
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 2, 3, 4]))):
        span = _any_span(places, rng)
        way = rng.choice(list(WAYS), p=[0.5, 0.15, 0.17, 0.06, 0.06, 0.06])
        WAYS[way](changed, span, rng)
        said.append(f"{way} of {span.kind.decode(errors='replace')} at {span.begins}")
    if rng.random() < 0.1:
        span = _any_span(places, rng)
        end = int(rng.integers(span.begins, span.ends + 1))
        del changed[end:]
        said.append(f"file ends at {end}")
    return bytes(changed), "; ".join(said)


def _any_span(places: list[Span], rng: Generator) -> Span:
    kinds = sorted({span.kind for span in places})
    kind = kinds[int(rng.integers(len(kinds)))]
    alike = [span for span in places if span.kind == kind]
    return alike[int(rng.integers(len(alike)))]


def _set_number(changed: bytearray, span: Span, rng: Generator) -> None:
    """Set a number of 1, 2, 4 or 8 bytes; counts stand in front, so the first words are hit more often."""
    width = int(rng.choice([1, 2, 4, 8], p=[0.1, 0.1, 0.7, 0.1]))
    room = span.own_ends - span.begins - 8 - width
    if room < 0:
        return
    words = min(room, 24) if rng.random() < 0.6 else room
    at = span.begins + 8 + int(rng.integers(words // width + 1)) * width
    _put(changed, at, width, _number(int.from_bytes(changed[at : at + width], "big"), rng))


def _set_size(changed: bytearray, span: Span, rng: Generator) -> None:
    _put(changed, span.begins, 4, _number(span.ends - span.begins, rng))


def _number(old: int, rng: Generator) -> int:
    way = rng.random()
    if way < 0.5:
        return EXTREMES[int(rng.integers(len(EXTREMES)))]
    if way < 0.8:
        return old + STEPS[int(rng.integers(len(STEPS)))]
    return int(rng.integers(1 << 32)) if way < 0.9 else int(rng.integers(1 << int(rng.integers(1, 33))))


def _put(changed: bytearray, at: int, width: int, value: int) -> None:
    changed[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "big")


def _set_bytes(changed: bytearray, span: Span, rng: Generator) -> None:
    for _ in range(int(rng.integers(1, 9))):
        if span.own_ends > span.begins + 8:
            changed[int(rng.integers(span.begins + 8, span.own_ends))] = int(rng.integers(256))


def _set_kind(changed: bytearray, span: Span, rng: Generator) -> None:
    others = [*sorted(HOLDERS), b"free", b"mdat", b"stts", b"trun", b"zzzz"]
    changed[span.begins + 4 : span.begins + 8] = others[int(rng.integers(len(others)))]


def _zero(changed: bytearray, span: Span, rng: Generator) -> None:
    begins = int(rng.integers(span.begins + 8, span.own_ends + 1))
    changed[begins : span.own_ends] = bytes(span.own_ends - begins)


def _scramble(changed: bytearray, span: Span, rng: Generator) -> None:
    begins = int(rng.integers(span.begins + 8, span.own_ends + 1))
    changed[begins : span.own_ends] = rng.bytes(span.own_ends - begins)


WAYS: dict[str, Callable[[bytearray, Span, Generator], None]] = {
    "number": _set_number,
    "size": _set_size,
    "bytes": _set_bytes,
    "kind": _set_kind,
    "zeros": _zero,
    "noise": _scramble,
}


def _changed_tree(content: bytes, rng: Generator) -> tuple[bytes, str]:
    """Return the file with one box gone, twice or elsewhere, in holders whose sizes are right."""
    boxes = read_boxes(content)
    holders = [each.inner for box in boxes for each in box.walk() if each.inner] + [boxes]
    inner = holders[int(rng.integers(len(holders)))]
    number = int(rng.integers(len(inner)))
    box = inner[number]
    way = ("gone", "twice", "elsewhere")[int(rng.integers(3))]
    if way != "twice":
        del inner[number]
    if way != "gone":
        target: list[Box] = inner if way == "twice" else holders[int(rng.integers(len(holders)))]
        target.insert(int(rng.integers(len(target) + 1)), deepcopy(box))
    return b"".join(each.written() for each in boxes), f"{box.kind.decode(errors='replace')} {way}"
