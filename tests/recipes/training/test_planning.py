"""What a YAML leaves to the machine: planned at the start, kept or planned anew by a run that goes on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.measuring.recipe_arguments import fixed_arguments
from data_prep.disk.byte_counts import GIB
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from data_prep.hub.source import open_dataset
from recipes import sft_qwen2vl
from recipes.machine import this_machine
from recipes.machine.plan import PLANNED, Machine
from recipes.model import device
from recipes.model.base import BaseModel
from recipes.training.command_line import Settings, read_settings
from recipes.training.planning import planned
from recipes.training.run_folder import RunFolder
from tests.recipes.machine.test_memory import CONFIG
from tests.recipes.machine.test_training_time import PART
from tests.tiny_data import many_clips, write_data

CARD = torch.device("cuda", 0)


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """The planned YAML on a data folder of its own, into a run that isn't there."""
    data = write_data(tmp_path / "data", many_clips())
    places = ["--output_dir", str(tmp_path / "run"), "--vision_cache", str(tmp_path / "vision")]
    return ["--config", "recipes/configs/qwen2vl_7b.yaml", "--dataset", str(data), *places]


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    """Of the 7B its sizes alone."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({**CONFIG, "model_type": "qwen2_vl"}))
    return BaseModel("./base", "0", tmp_path / "base")


def on_a_card(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    machine = Machine(PART, gib * GIB, 24 * GIB, 100 * GIB)
    monkeypatch.setattr(device, "choose_device", lambda: CARD)
    monkeypatch.setattr(this_machine, "this_machine", lambda device, folder: machine)


def plan_of(settings: Settings, base: BaseModel, run: RunFolder) -> Settings:
    return planned(settings, base, open_dataset(settings.values["dataset"]), run)


def begun_with(settings: Settings, folder: Path, *, finished: bool = False) -> None:
    """Leave a run that was begun with these settings and has a checkpoint, or its adapter."""
    folder.mkdir()
    values = {name: value for name, value in settings.values.items() if name in PLANNED}
    (folder / "run.json").write_text(json.dumps(values))
    if finished:
        for name in ("adapter_model.safetensors", "safety.json"):
            (folder / name).touch()
    else:
        (folder / "checkpoint-1").mkdir()


def test_lines_that_are_left_out_are_planned_and_told(
    flags: list[str],
    tmp_path: Path,
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_a_card(monkeypatch, 5.2)
    settings = read_settings(flags)
    found = plan_of(settings, base, RunFolder(tmp_path / "run")).values
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == 16
    assert (found["layers_on_host"], found["embedding_on_host"], found["head_on_host"]) == ("all", True, False)
    assert {name: found[name] for name in found if name not in PLANNED} == {
        name: value for name, value in settings.values.items() if name not in PLANNED
    }
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all(line.startswith("plan: ") for line in said)
    assert said[0] == "plan: 2 frames on the card at once, 8 times an update; no layers recomputed"


def test_flag_pins_a_line(flags: list[str], tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_card(monkeypatch, 5.2)
    settings = read_settings([*flags, "--per_device_train_batch_size", "2", "--layers_on_host", "20"])
    found = plan_of(settings, base, RunFolder(tmp_path / "run")).values
    assert (found["per_device_train_batch_size"], found["layers_on_host"]) == (2, "20")


def test_yaml_that_says_all_itself_stays_as_it_is(
    flags: list[str], tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_card(monkeypatch, 5.2)
    settings = read_settings([*flags, *fixed_arguments("8gb", {})[2:]])
    assert plan_of(settings, base, RunFolder(tmp_path / "run")) is settings


def test_without_a_gpu_frames_at_once_are_all_that_follows(flags: list[str], tmp_path: Path, base: BaseModel) -> None:
    found = plan_of(read_settings([*flags, "--use_cpu"]), base, RunFolder(tmp_path / "run")).values
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (8, 2)
    assert not found["embedding_on_host"] and found["layers_on_host"] == "0"


def test_run_that_goes_on_is_planned_anew_but_for_its_optimizer(
    flags: list[str], tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run = read_settings(flags), RunFolder(tmp_path / "run")
    on_a_card(monkeypatch, 5.2)
    small = plan_of(settings, base, run)
    begun_with(small, run.path)
    on_a_card(monkeypatch, 78)
    large = plan_of(read_settings([*flags, "--resume"]), base, run).values
    assert small.values["optimizer_on_host"] and large["optimizer_on_host"]
    assert large["layers_on_host"] == "0" and not large["head_on_host"]
    assert large["per_device_train_batch_size"] > small.values["per_device_train_batch_size"]


def test_finished_run_is_as_it_was_made(
    flags: list[str], tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run = read_settings(flags), RunFolder(tmp_path / "run")
    on_a_card(monkeypatch, 5.2)
    made = plan_of(settings, base, run)
    begun_with(made, run.path, finished=True)
    on_a_card(monkeypatch, 0.1)
    assert plan_of(read_settings([*flags, "--resume"]), base, run).values == {**made.values, "resume": True}


def test_machine_that_bears_no_plan_is_told_before_anything_is_written(
    flags: list[str], tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_card(monkeypatch, 0.5)
    with pytest.raises(InputError, match=r"the card has 0\.5 GiB free, and about 0\.9 are needed"):
        plan_of(read_settings(flags), base, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def small_yaml(tmp_path: Path, small_base: Path) -> Path:
    """The demo's YAML with eight frames an update and all that can be planned left out, on tiny frames."""
    demo = yaml.safe_load((PROJECT_ROOT / "recipes/configs/demo_cpu.yaml").read_text())
    data = write_data(tmp_path / "data", many_clips())
    own = {"dataset": str(data), "model_name_or_path": str(small_base), "output_dir": str(tmp_path / "run")}
    lines = {name: value for name, value in demo.items() if name not in PLANNED} | own
    config = tmp_path / "run.yaml"
    config.write_text(
        yaml.safe_dump(
            {**lines, "frames_an_update": 8, "max_steps": 4, "eval_steps": 2, "save_steps": 2, "max_pixels": 12544}
        )
    )
    return config


def losses(run: Path) -> list[float]:
    log = json.loads((run / "training.json").read_text())["log_history"]
    return [entry["eval_loss"] for entry in log if "eval_loss" in entry]


FIXED_BY_HAND = [
    "--frames_an_update",
    "null",
    "--per_device_train_batch_size",
    "4",
    "--gradient_accumulation_steps",
    "2",
]


@pytest.mark.parametrize("by_hand", [[], FIXED_BY_HAND], ids=["planned", "by a recipe that planned nothing"])
def test_run_goes_on_with_other_frames_at_once_to_the_same_adapter(
    small_yaml: Path, tmp_path: Path, by_hand: list[str]
) -> None:
    """Half of it with 8 frames at once, or 4 as an earlier recipe fixed it, the other half with 2."""
    config = ["--config", str(small_yaml), "--linear_probe", "false", "--save_total_limit", "5"]
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    assert sft_qwen2vl.main([*config, *by_hand, "--output_dir", str(whole)]) == 0
    begun.mkdir()
    shutil.copytree(whole / "checkpoint-2", begun / "checkpoint-2")
    shutil.copy(whole / "run.json", begun)
    other_plan = ["--per_device_train_batch_size", "2", "--activation_checkpointing", "--head_on_host"]
    flags = ["--output_dir", str(begun), "--resume", *other_plan]
    assert sft_qwen2vl.main([*config, *flags]) == 0
    record = json.loads((begun / "run.json").read_text())
    assert (record["per_device_train_batch_size"], record["gradient_accumulation_steps"]) == (2, 4)
    assert losses(begun) == pytest.approx(losses(whole), rel=1e-4)
    assert len(losses(begun)) == 2


def test_run_of_another_update_does_not_go_on(small_yaml: Path, tmp_path: Path) -> None:
    config = ["--config", str(small_yaml), "--linear_probe", "false"]
    assert sft_qwen2vl.main([*config, "--max_steps", "2"]) == 0
    (tmp_path / "run" / "safety.json").unlink()
    with pytest.raises(InputError, match=r"--resume: an update was of 8 frames when run began and is of 4 now"):
        sft_qwen2vl.main([*config, "--max_steps", "2", "--resume", "--frames_an_update", "4"])


@pytest.mark.parametrize(
    ("value", "said"), [("0", "frames_an_update 0 must be 1 or more, or null"), ("x", "not a whole")]
)
def test_update_that_is_none_is_refused(flags: list[str], value: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_settings([*flags, "--frames_an_update", value])
