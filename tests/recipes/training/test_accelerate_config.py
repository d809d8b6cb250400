"""The launcher's configuration must not change what a run's YAML says."""

import argparse
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from data_prep.files import PROJECT_ROOT
from recipes import sft_qwen2vl
from recipes.model.base import BaseModel
from recipes.training import run
from recipes.training.command_line import Settings
from recipes.training.run_folder import RunFolder

CONFIG = PROJECT_ROOT / "accelerate_config.yaml"
DEMO = ["--config", str(PROJECT_ROOT / "recipes/configs/demo_cpu.yaml")]


def launcher_environment(*flags: str) -> dict[str, str]:
    """Return what `accelerate launch` hands the training process."""
    args: argparse.Namespace = launch_command_parser().parse_args([*flags, "recipes/sft_qwen2vl.py"])
    args, _, _ = _validate_launch_command(args)
    return {
        name: value for name, value in prepare_simple_launcher_cmd_env(args)[1].items() if name.startswith("ACCELERATE")
    }


@pytest.fixture
def settings_under(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that reads the demo's settings in a given environment, as main does."""
    rows = SimpleNamespace(dataset={"train": range(100)})
    monkeypatch.setattr(sft_qwen2vl, "open_dataset", lambda *_args, **_kwargs: rows)
    monkeypatch.setattr(RunFolder, "check_free", lambda _folder, *, resume: None)
    monkeypatch.setattr(run, "only_prompt", lambda _source: "")
    monkeypatch.setattr(sft_qwen2vl, "check_dataset", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(
        sft_qwen2vl, "find_base", lambda name, _revision: BaseModel(name, "0", PROJECT_ROOT / "tiny_base/weights")
    )

    def read(environment: dict[str, str]) -> dict[str, Any]:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()
        found: dict[str, Any] = {}

        def stop_here(settings: Settings, base: BaseModel, source: Any) -> Any:
            found.update(prepare_run(settings, base, source).training.to_dict())
            raise KeyboardInterrupt

        prepare_run = sft_qwen2vl.prepare_run
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            patched.setattr(sft_qwen2vl, "prepare_run", stop_here)
            with pytest.raises(KeyboardInterrupt):
                sft_qwen2vl.main(DEMO)
        return found

    return read


def test_config_file_says_one_process_and_no_precision() -> None:
    settings = yaml.safe_load(CONFIG.read_text())
    assert (settings["num_processes"], settings["mixed_precision"]) == (1, "no")


def test_effective_settings_are_the_same_with_and_without_the_config_file(settings_under: Any) -> None:
    plain = settings_under({})
    assert plain["bf16"] is False
    assert len(plain) > 100
    with_file = settings_under(launcher_environment("--config_file", str(CONFIG)))
    without_file = settings_under(launcher_environment())
    assert with_file == without_file == plain


def test_a_launcher_that_asks_for_bf16_does_not_get_it(settings_under: Any) -> None:
    environment = launcher_environment("--mixed_precision", "bf16")
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert settings_under(environment) == settings_under({})
