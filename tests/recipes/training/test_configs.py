"""Every YAML loads into the libraries' dataclasses, and differs from the 7B's only where it must."""

from pathlib import Path

import pytest
import yaml

from data_prep.files import PROJECT_ROOT
from recipes.machine.plan import PLANNED
from recipes.training.command_line import read_settings
from recipes.training.settings import RecipeArguments

CONFIGS = sorted((PROJECT_ROOT / "recipes/configs").glob("*.yaml"))
REFERENCE = PROJECT_ROOT / "recipes/configs/qwen2vl_7b.yaml"

# The lines in which a recipe may differ from the 7B's: what names the difference.
DIFFERENCES = {
    "qwen2vl_7b.yaml": set(),
    "qwen2vl_2b.yaml": {"model_name_or_path", "output_dir"},
    "demo_cpu.yaml": {
        "model_name_or_path",
        "dataset",
        "output_dir",
        "dtype",
        "bf16",
        "use_cpu",
        "frames_an_update",
        "embedding_on_host",
        "head_on_host",
        "optimizer_on_host",
        "layers_on_host",
        "vision_blocks_on_host",
        "recomputed_layers",
        "unpack_base",
        "compile_layers",
        "cuda_graphs",
        "cache_vision_features",
        "activation_checkpointing",
        "activation_checkpointing_kwargs",
        "max_pixels",
        "num_train_epochs",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "per_device_eval_batch_size",
        "learning_rate",
        "optim",
        "dataloader_num_workers",
    },
}


def lines_of(config: Path) -> dict[str, str]:
    return yaml.safe_load(config.read_text())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_recipes_differ_only_where_they_must(config: Path) -> None:
    reference, recipe = lines_of(REFERENCE), lines_of(config)
    differing = {
        name for name in reference.keys() | recipe.keys() if reference.get(name, "absent") != recipe.get(name, "absent")
    }
    assert differing == DIFFERENCES[config.name]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_yaml_holds_known_names_of_the_right_type(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import ModelConfig, SFTConfig, TrlParser

    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    recipe, training, model = TrlParser((RecipeArguments, SFTConfig, ModelConfig)).parse_args_and_config(
        ["--config", str(config)]
    )
    written = lines_of(config)
    for name, value in written.items():
        holder = next(part for part in (recipe, training, model) if hasattr(part, name))
        found = getattr(holder, name)
        if not isinstance(value, list | dict) and name not in ("optim", "lr_scheduler_type", "report_to"):
            assert str(found).split(".")[-1].lower() == str(value).split(".")[-1].lower() or found == value, name
    assert training.output_dir == written["output_dir"]
    assert read_settings(["--config", str(config)]).values["model_name_or_path"] == model.model_name_or_path


@pytest.mark.parametrize("config", [each for each in CONFIGS if each.name.startswith("qwen2vl")], ids=lambda p: p.name)
def test_an_update_takes_sixteen_frames_and_all_else_is_left_to_the_machine(config: Path) -> None:
    recipe = lines_of(config)
    assert recipe["frames_an_update"] == 16 and not set(recipe) & set(PLANNED)


def test_the_7b_is_what_was_asked_for() -> None:
    recipe = lines_of(REFERENCE)
    assert recipe["model_name_or_path"] == "Qwen/Qwen2-VL-7B-Instruct"
    assert (recipe["num_train_epochs"], recipe["lora_r"], recipe["max_pixels"]) == (2, 16, 401408)
    assert recipe["load_in_4bit"] is True
    assert len(recipe["lora_target_modules"]) == 7


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_yaml_opens_with_its_launch_command_and_an_override(config: Path) -> None:
    head = [line for line in config.read_text().split("\n\n")[0].splitlines() if "accelerate launch" in line]
    assert len(head) == 2
    assert head[1].count(" --") > head[0].count(" --")
