"""A frame's features pooled to one vector, which the linear probe reads."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from recipes.batches.collator import VisionCollator
from recipes.batches.loader import batches
from recipes.metrics.stored_features import StoredFeatures, store
from recipes.model.forward import Batch, add_image_features
from recipes.ranks.group import gathered, refuse_any, send_to_first
from recipes.ranks.place import here, is_alone, is_first
from recipes.ranks.shares import whole_batches

SENT_AT_ONCE = 4096  # frames' features, 60 MB of the 7B's


def pool(features: torch.Tensor, grids: torch.Tensor, merge: int) -> torch.Tensor:
    """Return the mean of each frame's features, of shape (frames, hidden), in fp32.

    `features` has shape (visual tokens, hidden), frame after frame; `grids`, of shape (frames, 3), counts their patches
    in time, height and width, of which `merge` times `merge` make a token.
    """
    sizes = (grids.prod(1) // merge**2).tolist()
    return torch.stack([part.float().mean(0) for part in features.split(sizes)])


def pooled_features(
    model: Any, collator: VisionCollator, rows: Any, *, batch_size: int, folder: Path, num_workers: int = 0
) -> StoredFeatures:
    """Return the pooled features of every row, in order, of shape (rows, hidden), kept ones where the collator has.

    They are written as they are computed, to the disk that `folder` is on: 7 GB for 500,000 frames of the 7B. Raises
    InputError where that is full.
    """
    loader = batches(rows, collator.vision, batch_size=batch_size, num_workers=num_workers)
    progress = tqdm(loader, desc="linear probe", unit="batch", disable=not sys.stderr.isatty())
    return store((pooled_batch(model, batch) for batch in progress), folder)


def pooled_together(
    model: Any, collator: VisionCollator, rows: Any, *, batch_size: int, folder: Path, num_workers: int = 0
) -> StoredFeatures:
    """Return pooled_features of a data set's rows, each process of a job having computed its part of them.

    The first process alone has all; the others' come to it a few at a time, and with those they return nothing. Raises
    InputError in all processes where one couldn't compute its part.
    """
    mine = whole_batches(len(rows), batch_size, here().rank, here().ranks)
    how: dict[str, Any] = {"batch_size": batch_size, "folder": folder, "num_workers": num_workers}
    if is_alone():
        return pooled_features(model, collator, rows, **how)
    found, failed = None, None
    try:
        found = pooled_features(model, collator, rows.select(mine), **how)
    except Exception as error:  # whatever it is, the others would wait for this one's part
        failed = " ".join(f"{type(error).__name__}: {error}".split())
    refuse_any(failed)
    assert found is not None
    return store(_in_order(found), folder)


def _in_order(found: StoredFeatures) -> Iterator[np.ndarray]:
    """Yield all processes' features to the first one, in their order."""
    sizes = gathered(found.shape)
    for rank, (frames, width) in enumerate(sizes):
        for begin in range(0, frames, SENT_AT_ONCE):
            part = torch.empty(min(SENT_AT_ONCE, frames - begin), width)
            if rank == here().rank:
                part = torch.from_numpy(found[begin : begin + SENT_AT_ONCE])
            send_to_first(part, rank)
            if is_first():
                yield part.numpy()


def pooled_batch(model: Any, batch: Batch) -> np.ndarray:
    """Return the pooled features of a batch's frames, of shape (frames, hidden); see add_image_features."""
    merge = model.config.vision_config.spatial_merge_size
    return pool(add_image_features(model, batch)["image_features"], batch["image_grid_thw"], merge).cpu().numpy()
