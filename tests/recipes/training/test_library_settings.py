"""Every setting of TRL's dataclasses has its place here, and is read as TRL's own parser reads it."""

import dataclasses
from enum import Enum
from typing import Any

import pytest
from trl import ModelConfig, SFTConfig, TrlParser

from data_prep.files import from_root
from recipes.training.command_line import Settings, read_settings
from recipes.training.free_settings import FREE_SETTINGS
from recipes.training.library_settings import ALWAYS, NO_EFFECT, REFUSED, UNSAID, USED
from recipes.training.settings import EFFECTIVE, KNOWN, RecipeArguments

DEMO = ["--config", "recipes/configs/demo_cpu.yaml"]


@pytest.fixture(scope="module")
def actions() -> dict[str, Any]:
    """TRL's parser, by setting."""
    parser = TrlParser((RecipeArguments, SFTConfig, ModelConfig))
    found: dict[str, Any] = {}
    for action in parser._actions:
        found.setdefault(action.dest, action)
    return found


def test_every_setting_of_the_libraries_stands_in_one_table() -> None:
    library = [field.name for part in (SFTConfig, ModelConfig) for field in dataclasses.fields(part)]
    assert sorted([*USED, *NO_EFFECT, *REFUSED]) == sorted(library)


def test_defaults_are_the_libraries_own(actions: dict[str, Any]) -> None:
    differing = {name for name, known in KNOWN.items() if (actions[name].default or None) != (known.default or None)}
    assert differing == set(ALWAYS)


def test_kinds_are_the_libraries_own(actions: dict[str, Any]) -> None:
    for name in EFFECTIVE:
        kind, reads = KNOWN[name].kind, actions[name].type
        assert (actions[name].nargs == "+") == (kind is list), name
        assert (getattr(reads, "__name__", "") == "string_to_bool") == (kind is bool), name
        number = getattr(reads, "__name__", "") in ("int", "float")
        assert number == (kind in (int, float)) and (not number or reads.__name__ == kind.__name__), name


def test_free_settings_are_known_ones_with_an_effect() -> None:
    assert set(EFFECTIVE) >= FREE_SETTINGS


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--seed=7", "--no_linear_probe", "--lora_target_modules", "q_proj", "v_proj", "--learning_rate", "1e-4"],
        ["--resume", "--max_steps", "40", "--threshold", "0.25", "--eval-steps", "0.5", "--save-steps", "0.5"],
        [
            "--report_to",
            "none",
            "--early_stopping_patience",
            "2",
            "--eval_steps=0.25",
            "--data_seed",
            "none",
            "--lr_scheduler_kwargs",
            '{"num_cycles": 0.5}',
        ],
    ],
)
def test_trl_reads_the_same_of_the_same_words(flags: list[str]) -> None:
    settings = read_settings([*DEMO, *flags])
    ours = settings.as_dataclasses()
    theirs = TrlParser((RecipeArguments, SFTConfig, ModelConfig)).parse_args_and_config([*DEMO, *flags])
    for one, other in zip(ours, theirs, strict=True):
        assert as_dict(one) == as_dict(other)
    agree(settings, ours)


def test_what_isn_t_said_is_what_the_libraries_make_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    given = {"model_name_or_path": "plant/base", "output_dir": "x", "dataset": "local/x", "max_pixels": 3136}
    values = {name: known.default for name, known in EFFECTIVE.items()} | given | UNSAID
    settings = Settings(config=from_root("x"), given=given, values={**values, "lora_target_modules": None})
    agree(settings, settings.as_dataclasses())


def agree(settings: Settings, parts: tuple[Any, ...]) -> None:
    """Assert that the effective settings are those of the libraries' dataclasses, their own rewriting apart."""
    rewritten = {"report_to", "disable_tqdm", "lr_scheduler_kwargs", "dataloader_pin_memory"}
    for name in EFFECTIVE.keys() - rewritten:
        found = next(getattr(part, name) for part in parts if hasattr(part, name))
        assert (found.value if isinstance(found, Enum) else found) == settings.values[name], name


def as_dict(part: Any) -> dict[str, Any]:
    return part.to_dict() if hasattr(part, "to_dict") else dataclasses.asdict(part)
