"""Clips that look alike without being the same file, such as one encoded twice: told by a perceptual hash.

It is the DCT hash of the ImageHash library, 16 x 16 bits a frame. One frame a clip isn't enough: a fixed camera sees
the same empty scene again and again. See benchmarks/README.md for what was measured.
"""

import sys
from collections.abc import Iterable
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

    `different_bits` is that of the frames that differ most. Pairs are in natural order of their paths. Raises
    InputError for a frame below `data` that is missing or damaged.
    """
    clips = sorted((clip for clip in clips if clip.has_frames), key=lambda clip: natural_key(clip.path))
    progress = tqdm(clips, desc="comparing clips", unit="clip", disable=not sys.stderr.isatty())
    hashes = np.array([_hashes(data, clip) for clip in progress])
    pairs = []
    for number, clip in enumerate(clips):
        bits = (hashes[number + 1 :] != hashes[number]).sum(axis=2).max(axis=1)
        for offset in np.flatnonzero(bits <= MOST_BITS):
            other = clips[number + 1 + offset]
            if other.sha256 != clip.sha256:
                pair = {"paths": [clip.path, other.path], "different_bits": int(bits[offset])}
                pairs.append(pair | standing((clip, other)))
    return pairs


def _hashes(data: Path, clip: Clip) -> list[np.ndarray]:
    """Return the hashes of a clip's first, middle and last frame, each as 256 truth values."""
    from imagehash import phash  # takes a fifth of a second

    paths = clip.frame_paths
    sampled = (paths[0], paths[len(paths) // 2], paths[-1])
    greys = (read_grey(data / path, path, 8 * HASH_SIDE) for path in sampled)
    return [phash(grey, hash_size=HASH_SIDE).hash.ravel() for grey in greys]
