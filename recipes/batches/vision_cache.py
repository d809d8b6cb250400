"""Vision-tower features computed once and kept on disk: the tower is frozen, so a frame's features never change."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from data_prep.disk.disk_errors import told
from data_prep.errors import InputError
from data_prep.files import to_root, write_atomic
from data_prep.hub.source import FramesSource
from recipes.batches.collator import PIXELS_VERSION, VisionCollator
from recipes.batches.loader import batches, encoded_image
from recipes.model.base import BaseModel
from recipes.model.forward import FEATURES_VERSION, image_features
from recipes.model.loading import load_tower
from recipes.ranks.place import here, is_alone
from recipes.ranks.shared_folder import sharers
from recipes.ranks.shares import every

WRITERS = 16
READ_AT_ONCE = 100  # frames, to know them by content
MAKERS = ("pillow", "qwen-vl-utils", "torch", "torchvision", "transformers")  # packages that have a part in features
_LAYOUT = 2  # part of the key: a change in how entries are written must not meet old ones
_DIGEST_BYTES = 32


class VisionCache:
    """A folder of features, one file a frame, keyed by everything that they depend on.

    That is the frame's encoded bytes, the base and its revision, the two limits of its size, the tower's precision, and
    the versions of what makes features. An entry is written whole or not at all. The folder may be deleted at any time:
    what is missing is computed when a run starts.
    """

    def __init__(
        self, root: Path, base: BaseModel, *, max_pixels: int, dtype: torch.dtype, max_side: int | None = None
    ) -> None:
        made_by = [PIXELS_VERSION, FEATURES_VERSION, *(f"{name} {version(name)}" for name in MAKERS)]
        key = "\n".join(map(str, [_LAYOUT, base.name, base.revision, max_pixels, max_side, dtype, *made_by]))
        self.root = root
        self.folder = root / hashlib.sha256(key.encode()).hexdigest()[:16]

    def path(self, encoded: bytes) -> Path:
        """Return where the features of a frame, given as its encoded bytes, are kept."""
        name = _entry_name(hashlib.sha256(encoded).digest())
        return self.folder / name[:2] / name

    def read(self, encoded: bytes) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a frame's features, of shape (visual tokens, hidden), and its grid, of shape (3,).

        Raises InputError where the entry is gone or damaged.
        """
        path = self.path(encoded)
        try:
            with safe_open(path, framework="pt") as entry:
                return entry.get_tensor("features"), entry.get_tensor("grid")
        except (OSError, SafetensorError) as error:
            if path.exists() and (refused := told(error, str(path))):
                raise InputError(refused) from None
            raise InputError(
                f"vision cache: {to_root(path)} is gone or damaged; remove it and go on with --resume"
            ) from None

    def write(self, encoded: bytes, features: torch.Tensor, grid: torch.Tensor) -> None:
        """Keep a frame's features, whole or not at all."""
        path = self.path(encoded)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save({"features": features.contiguous(), "grid": grid}))

    def missing(self, frames: "EncodedFrames") -> list[int]:
        """Return the positions of the frames that aren't kept yet, each content once.

        Frames are read at the first call on a data set alone: their digests are kept, and entries known by their names.
        """
        first: dict[bytes, int] = {}
        for position, digest in enumerate(_digests(frames, self.root / f"{frames.name}.sha256s")):
            first.setdefault(digest, position)
        kept = self._kept()
        return [position for digest, position in first.items() if _entry_name(digest) not in kept]

    def count(self) -> int:
        """Return how many frames' features are kept."""
        return len(self._kept())

    def _kept(self) -> set[str]:
        """Return the names of all entries: half a million take a second, asking for each of them many."""
        folders = [entry.path for entry in os.scandir(self.folder) if entry.is_dir()] if self.folder.is_dir() else []
        return {entry.name for folder in folders for entry in os.scandir(folder)}


def _entry_name(digest: bytes) -> str:
    return f"{digest.hex()}.safetensors"


def _digests(frames: "EncodedFrames", file: Path) -> Iterator[bytes]:
    """Yield the SHA-256 of every frame, in order, from a file that is written where there is none.

    It holds them one after another and last their own, without which it isn't believed.
    """
    content = file.read_bytes() if file.is_file() else b""
    digests, check = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if len(digests) != _DIGEST_BYTES * len(frames) or hashlib.sha256(digests).digest() != check:
        progress = tqdm(frames, desc="frames known by content", unit="frame", disable=not sys.stderr.isatty())
        digests = b"".join(hashlib.sha256(encoded).digest() for encoded in progress)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, digests + hashlib.sha256(digests).digest())
    for begin in range(0, len(digests), _DIGEST_BYTES):
        yield digests[begin : begin + _DIGEST_BYTES]


def fill_cache(
    cache: VisionCache,
    frames: "EncodedFrames",
    collator: VisionCollator,
    base: BaseModel,
    *,
    device: torch.device,
    batch_size: int,
    num_workers: int,
    blocks_on_host: int = 0,
) -> int:
    """Compute the features that `frames` lack in the cache, with the tower alone on the device; return how many.

    Of several processes of a job that keep them in one folder each computes a part, and returns how many those are.
    So many of the tower's blocks pass through the device from host memory.
    Raises InputError, before anything is computed, where the disk is too small.
    """
    positions = cache.missing(frames)
    if not is_alone():
        mates = sharers(cache.root)  # all have looked for what is missing before any adds to it
        positions = every(positions, mates.index(here().rank), len(mates))
    if not positions:
        return 0
    tower = load_tower(base, dtype=collator.dtype, device=device, blocks_on_host=blocks_on_host)
    _check_disk(cache, frames, positions, collator, tower)
    loader = batches(Subset(frames, positions), _Frames(collator), batch_size=batch_size, num_workers=num_workers)
    progress = tqdm(total=len(positions), desc="vision features", unit="frame", disable=not sys.stderr.isatty())
    with progress, ThreadPoolExecutor(WRITERS) as writers:  # each entry waits for the disk
        for encoded, batch in loader:
            features = image_features(tower, batch["pixel_values"].to(device), batch["image_grid_thw"]).cpu()
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
    """The encoded frames of a data set's splits, in order, read when asked for: thousands would fill the memory.

    `name` tells them from other frames: it holds the data set's content hash.
    """

    def __init__(self, source: FramesSource, splits: Sequence[str]) -> None:
        self.name = "-".join([source.content_hash, *splits])
        self.splits = [source.rows(split) for split in splits]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.splits)

    def __iter__(self) -> Iterator[bytes]:
        for rows in self.splits:  # ten times as fast as row by row
            for part in rows.select_columns("image").with_format("arrow").iter(READ_AT_ONCE):
                yield from part["image"].combine_chunks().field("bytes").to_pylist()

    def __getitem__(self, position: int) -> bytes:
        for rows in self.splits:
            if position < len(rows):
                return encoded_image(rows[position])
            position -= len(rows)
        raise IndexError("there are no more frames")


def _check_disk(
    cache: VisionCache, frames: "EncodedFrames", positions: Sequence[int], collator: VisionCollator, tower: Any
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
