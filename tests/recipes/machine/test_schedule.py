from typing import Any

import pytest

from recipes.machine.schedule import checkpoints_of, updates_of
from tests.recipes.training.test_checks import values


@pytest.mark.parametrize(
    ("changed", "updates"),
    [
        ({"max_steps": 7}, 7),
        ({"num_train_epochs": 2.0}, 2 * 9),
        ({"num_train_epochs": 0.5}, 5),
        ({"num_train_epochs": 1.0, "gradient_accumulation_steps": 4}, 3),
        ({"num_train_epochs": 1.0, "per_device_train_batch_size": 100}, 1),
        ({"num_train_epochs": 1.0, "dataloader_drop_last": True}, 8),
    ],
)
def test_updates_are_counted(changed: dict[str, Any], updates: int) -> None:
    assert updates_of(values(**changed), rows=33) == updates


@pytest.mark.parametrize(
    ("changed", "checkpoints"),
    [
        ({"save_total_limit": 2}, 3),
        ({"save_total_limit": None, "save_steps": 0.25}, 5),
        ({"save_total_limit": None, "save_steps": 10.0}, 11),
        ({"save_total_limit": None, "save_steps": 500.0}, 2),
        ({"save_total_limit": None, "save_strategy": "no"}, 1),
    ],
)
def test_checkpoints_are_counted(changed: dict[str, Any], checkpoints: int) -> None:
    assert checkpoints_of(values(max_steps=100, **changed), rows=33) == checkpoints
