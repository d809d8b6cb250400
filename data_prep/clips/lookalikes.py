"""Clips that look alike without being the same file, such as one encoded twice: told by a perceptual hash.

It is the DCT hash of the ImageHash library, 16 x 16 bits a frame. One frame a clip isn't enough: a fixed camera sees
the same empty scene again and again. See benchmarks/README.md for what was measured.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.clips.audit import by_content, conflicts_of
from data_prep.clips.records import Clip, natural_key
from data_prep.media.images import read_grey

HASH_SIDE = 16
MOST_BITS = 6  # of 256; a frame that is shrunk and compressed hard differs by about as much from itself


def near_identical(data: Path, clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """Return the groups of clips that look alike: each has another in its group whose frames look like its own.

    Two clips of different content look alike where their first, middle and last frames do, each to each. Where samples
    are missing in between, the middle one isn't a copy's any more: of such a pair, the first, middle and last of the
    samples that both have are compared, if those are more than half of either's. In fewer, any two clips of one scene
    could look alike.

    A group says its clips' paths, copies of one content included, how many they are, and in `different_bits` the most
    by which two frames differ of the pairs that made it a group. Groups, not pairs: those grow with the square of what
    looks alike. Paths and groups are in natural order. Raises InputError for a frame below `data` that is missing or
    damaged.
    """
    contents = list(by_content(clips).values())
    firsts = [copies[0] for copies in contents]

    @cache
    def hash_of(path: str) -> np.ndarray:
        return _hash(data, path)

    progress = tqdm(firsts, desc="comparing clips", unit="clip", disable=not sys.stderr.isatty())
    hashes = np.array([[hash_of(clip.frame_path(sample)) for sample in _three(clip.samples)] for clip in progress])
    starts = np.array([clip.samples[0] for clip in firsts])
    have_gaps = np.array([clip.samples[-1] >= clip.frames for clip in firsts])
    groups = _Groups(len(firsts))
    for number, clip in enumerate(firsts):
        others = groups.later_apart(number)
        first_alike = _bits(hashes[others, 0], hashes[number, 0]) <= MOST_BITS
        # A first frame that both have is compared either way.
        others = others[first_alike | (have_gaps[others] | have_gaps[number]) & (starts[others] != starts[number])]
        bits = _bits(hashes[others], hashes[number]).max(axis=1)
        for at in np.flatnonzero(have_gaps[others] | have_gaps[number]):
            bits[at] = _bits_where_both_have(clip, firsts[others[at]], hash_of, bits[at])
        for at in np.flatnonzero(bits <= MOST_BITS):
            groups.join(number, int(others[at]), int(bits[at]))
    return [_described([clip for at in members for clip in contents[at]], bits) for members, bits in groups.found()]


def _described(clips: list[Clip], bits: int) -> dict[str, Any]:
    paths = sorted((clip.path for clip in clips), key=natural_key)
    return {"paths": paths, "clips": len(paths), "different_bits": bits, **conflicts_of(clips)}


class _Groups:
    """Numbers from 0 on, each in a group of its own until it is joined with others."""

    def __init__(self, count: int) -> None:
        self._group_of = np.arange(count)
        self._bits = np.zeros(count, dtype=int)  # by group

    def later_apart(self, number: int) -> np.ndarray:
        """Return the numbers after this one that aren't in its group."""
        return number + 1 + np.flatnonzero(self._group_of[number + 1 :] != self._group_of[number])

    def join(self, one: int, other: int, bits: int) -> None:
        """Make one group of two, through a pair that differs in so many bits."""
        kept, gone = sorted((int(self._group_of[one]), int(self._group_of[other])))
        if kept == gone:
            return
        self._bits[kept] = max(self._bits[kept], self._bits[gone], bits)
        self._group_of[self._group_of == gone] = kept

    def found(self) -> list[tuple[list[int], int]]:
        """Return the groups of several numbers, each with the most bits that joined it, by their first number."""
        names, counts = np.unique(self._group_of, return_counts=True)
        several = names[counts > 1].tolist()
        return [(np.flatnonzero(self._group_of == name).tolist(), int(self._bits[name])) for name in several]


def _bits(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return in how many bits hashes of _hash differ."""
    return np.bitwise_count(some ^ others).sum(axis=-1)


def _three(samples: Sequence[int]) -> tuple[int, int, int]:
    return samples[0], samples[len(samples) // 2], samples[-1]


def _bits_where_both_have(clip: Clip, other: Clip, hash_of: Callable[[str], np.ndarray], otherwise: int) -> int:
    """Return how many bits differ at most in samples that both clips have, `otherwise` where those are too few."""
    both = sorted(set(clip.samples) & set(other.samples))
    if 2 * len(both) <= max(clip.frames, other.frames):
        return otherwise
    return max(int(_bits(hash_of(clip.frame_path(k)), hash_of(other.frame_path(k)))) for k in _three(both))


def _hash(data: Path, path: str) -> np.ndarray:
    """Return a frame's hash, 256 bits as four integers of 64."""
    from imagehash import phash  # takes a fifth of a second

    bits = phash(read_grey(data / path, path, 8 * HASH_SIDE), hash_size=HASH_SIDE).hash
    return np.packbits(bits).view(np.uint64)
