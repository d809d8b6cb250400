"""Can the label be read off the background? A probe that sees a frame's edges alone, where behaviours seldom are.

It is ridge regression on the edges of one frame a clip, shrunk to thumbnails, judged on clips of contents that it
wasn't fitted to. A fixed camera looks the same at its edges whatever happens before it, so what the probe gets right it
knows by the place, the light or the day. Torch isn't needed.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.clips.records import Clip
from data_prep.labels import LABELS, UNSAFE
from data_prep.media.images import read_image

THUMBNAIL = (32, 18)  # pixels
EDGE = 4  # pixels of a thumbnail on each side: the inner 24 x 10 of 32 x 18 are never seen
PARTS = 5
_RIDGE = 10.0


def probe_background(clips: Iterable[Clip], data_of: Callable[[Clip], Path]) -> dict[str, Any] | None:
    """Return how well clips' labels can be told from the edges of their middle frames, None where that can't be said.

    `data_of` names the data folder that holds a clip's frames. `balanced_accuracy` is the mean of both labels' shares
    of clips that are told right; 0.5 is chance. Clips are told in PARTS parts by a probe fitted to the others; which
    part follows from the content, so copies are together. Raises InputError for a frame that is missing or damaged.
    """
    usable = sorted((clip for clip in clips if clip.has_frames), key=lambda clip: (clip.sha256 or "", clip.path))
    unsafe = np.array([clip.label == UNSAFE for clip in usable])
    part = np.array([int((clip.sha256 or "0")[:8], 16) % PARTS for clip in usable])
    fittable = [number for number in range(PARTS) if len(set(unsafe[part != number])) == len(LABELS)]
    told = np.isin(part, fittable)
    if len(set(unsafe[told])) < len(LABELS):
        return None
    edges = np.stack([_edges(data_of(clip), clip) for clip in usable])
    right = np.zeros(len(usable), dtype=bool)
    for number in fittable:
        here = part == number
        right[here] = _told(edges[~here], unsafe[~here], edges[here]) == unsafe[here]
    shares = [right[told & (unsafe == label)].mean() for label in (False, True)]
    return {"clips": int(told.sum()), "balanced_accuracy": round(float(np.mean(shares)), 3)}


def _edges(data: Path, clip: Clip) -> np.ndarray:
    """Return the edges of a clip's middle frame as one row of numbers from 0 to 1."""
    path = clip.frame_path(clip.samples[clip.frames // 2])
    image = read_image(data / path, path).resize(THUMBNAIL, Image.Resampling.BOX)
    pixels = np.asarray(image, dtype=np.float64) / 255
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[EDGE:-EDGE, EDGE:-EDGE] = True
    return pixels[~inner].ravel()


def _told(edges: np.ndarray, unsafe: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return which of the asked rows are UNSAFE by ridge regression on the others, in which both labels weigh alike."""
    weights = 0.5 / np.where(unsafe, unsafe.mean(), 1 - unsafe.mean())
    mean = np.average(edges, axis=0, weights=weights)
    scaled = (edges - mean) * np.sqrt(weights)[:, None]
    target = np.where(unsafe, 1.0, -1.0) * np.sqrt(weights)
    # As many equations as clips: fewer than pixels.
    dual = np.linalg.solve(scaled @ scaled.T + _RIDGE * np.eye(len(edges)), target)
    return (asked - mean) @ (scaled.T @ dual) >= 0
