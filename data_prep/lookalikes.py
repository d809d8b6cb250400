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

from data_prep.clips import Clip, natural_key, standing
from data_prep.images import read_grey

HASH_SIDE = 16
MOST_BITS = 6  # of 256; a frame that is shrunk and compressed hard differs by about as much from itself


def near_identical(data: Path, clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """Return the pairs of clips of different content whose first, middle and last frames look alike, each to each.

    Where samples are missing in between, the middle one isn't a copy's any more: of such a pair, the first, middle and
    last of the samples that both have are compared, if those are more than half of either's. In fewer, any two clips of
    one scene could look alike. `different_bits` is that of the frames that differ most. Pairs are in natural order of
    their paths. Raises InputError for a frame below `data` that is missing or damaged.
    """
    clips = sorted((clip for clip in clips if clip.has_frames), key=lambda clip: natural_key(clip.path))

    @cache
    def hash_of(path: str) -> np.ndarray:
        return _hash(data, path)

    progress = tqdm(clips, desc="comparing clips", unit="clip", disable=not sys.stderr.isatty())
    hashes = np.array([[hash_of(clip.frame_path(sample)) for sample in _three(clip.samples)] for clip in progress])
    starts = np.array([clip.samples[0] for clip in clips])
    have_gaps = np.array([clip.samples[-1] >= clip.frames for clip in clips])
    pairs = []
    for number, clip in enumerate(clips):
        later = slice(number + 1, None)
        different = (hashes[later] != hashes[number]).sum(axis=2)
        bits = different.max(axis=1)
        # A first frame that both have is compared either way.
        open_still = (different[:, 0] <= MOST_BITS) | (starts[later] != starts[number])
        for offset in np.flatnonzero(open_still & (have_gaps[later] | have_gaps[number])):
            bits[offset] = _bits_where_both_have(clip, clips[number + 1 + offset], hash_of, bits[offset])
        for offset in np.flatnonzero(bits <= MOST_BITS):
            other = clips[number + 1 + offset]
            if other.sha256 != clip.sha256:
                pair = {"paths": [clip.path, other.path], "different_bits": int(bits[offset])}
                pairs.append(pair | standing((clip, other)))
    return pairs


def _three(samples: Sequence[int]) -> tuple[int, int, int]:
    return samples[0], samples[len(samples) // 2], samples[-1]


def _bits_where_both_have(clip: Clip, other: Clip, hash_of: Callable[[str], np.ndarray], otherwise: int) -> int:
    """Return how many bits differ at most in samples that both clips have, `otherwise` where those are too few."""
    both = sorted(set(clip.samples) & set(other.samples))
    if 2 * len(both) <= max(clip.frames, other.frames):
        return otherwise
    return max(int((hash_of(clip.frame_path(k)) != hash_of(other.frame_path(k))).sum()) for k in _three(both))


def _hash(data: Path, path: str) -> np.ndarray:
    """Return a frame's hash as 256 truth values."""
    from imagehash import phash  # takes a fifth of a second

    return phash(read_grey(data / path, path, 8 * HASH_SIDE), hash_size=HASH_SIDE).hash.ravel()
