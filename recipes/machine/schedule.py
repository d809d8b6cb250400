"""How often a run updates its adapter, and how many checkpoints of it lie on the disk at once. No torch."""

import math
from collections.abc import Mapping
from typing import Any


def updates_of(values: Mapping[str, Any], rows: int) -> int:
    """Return how many updates training on that many rows makes with settings of those `values`.

    It is as transformers' Trainer counts them: the last batch and the last update of an epoch may be short.
    """
    if values["max_steps"] > 0:
        return int(values["max_steps"])
    per_batch = values["per_device_train_batch_size"]
    batches = rows // per_batch if values["dataloader_drop_last"] else math.ceil(rows / per_batch)
    per_epoch = max(math.ceil(batches / values["gradient_accumulation_steps"]), 1)
    return math.ceil(values["num_train_epochs"] * per_epoch)


def checkpoints_of(values: Mapping[str, Any], rows: int) -> int:
    """Return how many checkpoints lie on the disk at once, the one that is being saved included.

    Without a limit all stay. A `save_steps` below 1 is a share of all updates, as in the Trainer.
    """
    if values["save_total_limit"]:
        return int(values["save_total_limit"]) + 1
    if values["save_strategy"] == "no":
        return 1
    updates, every = updates_of(values, rows), values["save_steps"]
    return math.ceil(updates / (every if every >= 1 else max(math.ceil(updates * every), 1))) + 1
