import re
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.errors import InputError
from recipes.model.base import find_base
from recipes.training.checks import check_learned, check_room, check_settings, check_updates
from recipes.training.command_line import read_settings

DEMO = ["--config", "recipes/configs/demo_cpu.yaml"]


def values(**changed: Any) -> dict[str, Any]:
    return {**read_settings(DEMO).values, **changed}


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({"max_steps": 1, "warmup_steps": 0}, True),
        ({"max_steps": 1, "warmup_steps": 0.05}, False),
        ({"max_steps": 2, "warmup_steps": 0.05}, True),
        ({"max_steps": 20, "warmup_steps": 20.0}, False),
        ({"max_steps": 21, "warmup_steps": 20.0}, True),
        ({"num_train_epochs": 0.0}, False),
    ],
)
def test_run_that_could_learn_nothing_is_refused(changed: dict[str, Any], passes: bool) -> None:
    try:
        check_updates(values(**changed), rows=33)
        passed = True
    except InputError:
        passed = False
    assert passed == passes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate -1 teaches nothing"),
        ({"learning_rate": float("nan")}, "learning_rate nan teaches nothing"),
        ({"optimizer_on_host": True, "optim_args": "a=1"}, "optim_args has no effect with optimizer_on_host"),
        ({"eval_steps": 0.5}, "eval_steps 0.5 and save_steps 0.25 differ"),
        ({"cuda_graphs": True}, "cuda_graphs needs a GPU"),
        ({"layers_on_host": "2"}, "layers_on_host 2 spares nothing: two are on the card at any time; set 0, or more"),
        ({"vision_blocks_on_host": "1"}, "vision_blocks_on_host 1 spares nothing"),
        (
            {"layers_on_host": "all", "unpack_base": True, "load_in_4bit": True},
            "layers_on_host and unpack_base exclude each other; set layers_on_host to 0, or unpack_base to false",
        ),
        ({"recomputed_layers": "0", "activation_checkpointing": True}, "recomputed_layers 0 is what"),
        ({"recomputed_layers": "2"}, "recomputed_layers has no effect without activation_checkpointing"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        check_settings(values(**changed))


def test_run_that_cannot_fit_the_card_is_refused_unless_told_otherwise(
    small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, card = find_base(str(small_base)).read_config(), torch.device("cuda", 0)
    monkeypatch.setattr("recipes.model.device.free_memory", lambda device: 2**20)
    with pytest.raises(
        InputError, match=r"the card has 0\.0 GiB free, and about 0\.1 are needed; set frames_an_update"
    ):
        check_room(values(), config, card)
    check_room(values(fit_check=False), config, card)
    check_room(values(), config, torch.device("cpu"))
    monkeypatch.setattr("recipes.model.device.free_memory", lambda device: 2**33)
    check_room(values(), config, card)


def test_adapter_counts_as_trained_once_any_b_is_not_zero() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2, bias=False) for name in ("lora_A", "lora_B", "plain")})
    check_learned(model, 3)
    torch.nn.init.zeros_(model["lora_B"].weight)
    with pytest.raises(InputError, match="the adapter of step 3 is as it began"):
        check_learned(model, 3)
