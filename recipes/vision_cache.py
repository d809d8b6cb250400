"""Vision-tower features computed once and kept on disk: the tower is frozen, so a frame's features never change."""

import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from data_prep.errors import InputError
from data_prep.files import to_root, write_atomic
from recipes.base_model import BaseModel
from recipes.collator import VisionCollator, batches, encoded_image
from recipes.forward import frame_features
from recipes.modeling import load_tower

WRITERS = 16
_LAYOUT = 1  # part of the key: a change in how entries are made or written must not meet old ones


Frames: TypeAlias = "Sequence[bytes] | EncodedFrames"


class VisionCache:
    """A folder of features, one file a frame, keyed by everything that they depend on.

    That is the frame's encoded bytes, the base and its revision, the pixel limit and the tower's precision. An entry is
    written whole or not at all. The folder may be deleted at any time: what is missing is computed when a run starts.
    """

    def __init__(self, root: Path, base: BaseModel, *, max_pixels: int, dtype: torch.dtype) -> None:
        key = f"{_LAYOUT}\n{base.name}\n{base.revision}\n{max_pixels}\n{dtype}"
        self.folder = root / hashlib.sha256(key.encode()).hexdigest()[:16]

    def path(self, encoded: bytes) -> Path:
        """Return where the features of a frame, given as its encoded bytes, are kept."""
        digest = hashlib.sha256(encoded).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def read(self, encoded: bytes) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a frame's features, of shape (visual tokens, hidden), and its grid, of shape (3,).

        Raises InputError where the entry is gone or damaged.
        """
        path = self.path(encoded)
        try:
            with safe_open(path, framework="pt") as entry:
                return entry.get_tensor("features"), entry.get_tensor("grid")
        except (OSError, SafetensorError):
            raise InputError(
                f"vision cache: {to_root(path)} is gone or damaged; remove it and go on with --resume"
            ) from None

    def write(self, encoded: bytes, features: torch.Tensor, grid: torch.Tensor) -> None:
        """Keep a frame's features, whole or not at all."""
        path = self.path(encoded)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save({"features": features.contiguous(), "grid": grid}))

    def missing(self, frames: Frames) -> list[int]:
        """Return the positions of the frames that aren't kept yet, each content once."""
        first: dict[Path, int] = {}
        for position in range(len(frames)):
            first.setdefault(self.path(frames[position]), position)
        return [position for path, position in first.items() if not path.is_file()]


def fill(
    cache: VisionCache,
    frames: Frames,
    collator: VisionCollator,
    base: BaseModel,
    *,
    device: torch.device,
    batch_size: int,
    num_workers: int,
) -> int:
    """Compute the features that `frames` lack in the cache, with the tower alone on the device; return how many.

    Raises InputError, before anything is computed, where the disk is too small.
    """
    positions = cache.missing(frames)
    if not positions:
        return 0
    tower = load_tower(base, dtype=collator.dtype, device=device)
    _check_disk(cache, frames, positions, collator, tower)
    loader = batches(Subset(frames, positions), _Frames(collator), batch_size=batch_size, num_workers=num_workers)
    progress = tqdm(total=len(positions), desc="vision features", unit="frame", disable=not sys.stderr.isatty())
    with progress, ThreadPoolExecutor(WRITERS) as writers:  # each entry waits for the disk
        for encoded, batch in loader:
            features = frame_features(tower, batch["pixel_values"].to(device), batch["image_grid_thw"]).cpu()
            sizes = (batch["image_grid_thw"].prod(1) // tower.spatial_merge_size**2).tolist()
            list(writers.map(cache.write, encoded, features.split(sizes), batch["image_grid_thw"]))
            progress.update(len(encoded))
    return len(positions)


class _Frames:
    """Turn encoded frames into the tower's inputs, keeping the bytes beside them; a `collate_fn`."""

    def __init__(self, collator: VisionCollator) -> None:
        self.collator = collator

    def __call__(self, frames: Sequence[bytes]) -> tuple[Sequence[bytes], Mapping[str, torch.Tensor]]:
        return frames, self.collator.pixels([{"image": {"bytes": encoded}} for encoded in frames])


class EncodedFrames(Dataset):
    """The encoded frames of a data set's splits, in order, read when asked for: thousands would fill the memory."""

    def __init__(self, splits: Sequence[Any]) -> None:
        self.splits = splits

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.splits)

    def __getitem__(self, position: int) -> bytes:
        for rows in self.splits:
            if position < len(rows):
                return encoded_image(rows[position])
            position -= len(rows)
        raise IndexError("there are no more frames")


def _check_disk(
    cache: VisionCache, frames: Frames, positions: Sequence[int], collator: VisionCollator, tower: Any
) -> None:
    """Raise InputError unless the disk takes the missing entries; their size is taken from the first one's."""
    grid = collator.pixels([{"image": {"bytes": frames[positions[0]]}}])["image_grid_thw"][0]
    tokens = int(grid.prod()) // tower.spatial_merge_size**2
    needed = len(positions) * tokens * tower.config.hidden_size * tower.dtype.itemsize
    cache.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache.folder).free
    print(
        f"vision features of {len(positions)} frames: {needed / 1e9:.2f} GB in {to_root(cache.folder)}", file=sys.stderr
    )
    if needed > free:
        raise InputError(
            f"{to_root(cache.folder)}: {needed / 1e9:.1f} GB of vision features don't fit {free / 1e9:.1f} GB of "
            "disk; make room, name another vision_cache, or set cache_vision_features to false"
        )
