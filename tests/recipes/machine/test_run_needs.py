"""What stands in a run's way, each told by its own check."""

import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from data_prep.errors import InputError
from data_prep.hub.source import open_dataset
from recipes.machine.finding import Skipped
from recipes.machine.run_needs import RunNeeds
from recipes.model.base import BaseModel
from tests.recipes.machine.test_memory import CONFIG as SIZES_OF_THE_7B
from tests.recipes.machine.test_memory import CONFIG_2B as SIZES_OF_THE_2B


@pytest.mark.parametrize(
    ("free_bytes", "said"),
    [
        (
            2**20,
            "the card has 0.0 GiB free, and about 0.1 are needed; set frames_an_update",
        ),
        (2**36, None),
    ],
)
def test_memory_is_compared_with_what_the_card_has_free(
    settings: dict[str, Any], base: BaseModel, monkeypatch: pytest.MonkeyPatch, free_bytes: int, said: str | None
) -> None:
    monkeypatch.setattr("recipes.model.device.free_memory", lambda device: float(free_bytes))
    if said:
        with pytest.raises(InputError, match=said):
            RunNeeds(settings, base).check_memory(gpu_found=True)
    else:
        found = RunNeeds(settings, base).check_memory(gpu_found=True)
        assert "of 64.0 GiB on the card" in str(found)


def test_memory_that_cannot_be_page_locked_is_said_and_stands_in_no_way(
    settings: dict[str, Any], base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("recipes.model.device.free_memory", lambda device: 2.0**36)
    recipe = {**settings, "optimizer_on_host": True}
    monkeypatch.setattr("torch.empty", refuse)
    said = RunNeeds(recipe, base).check_memory(gpu_found=True)
    assert "; 0.0 of 0.0 GiB of host memory can be page-locked for the card (CUDA error: out of memory)" in said


def test_full_disk_is_named_with_what_it_lacks(
    settings: dict[str, Any], base: BaseModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=rf"vision features: .* needed in {tmp_path / 'vision'}, and 1 kB are free"):
        RunNeeds(settings, base, open_dataset(settings["dataset"])).check_disk()
    for size, needed in (("7B", r"16\.6"), ("2B", r"4\.4")):
        with pytest.raises(InputError, match=rf"the base model: {needed} GB needed in"):
            RunNeeds({**settings, "model_name_or_path": f"Qwen/Qwen2-VL-{size}-Instruct"}).check_disk()
    with pytest.raises(Skipped, match=r"^what base model 'plant/other' takes isn't known before it is here$"):
        RunNeeds({**settings, "model_name_or_path": "plant/other"}).check_disk()


@pytest.mark.parametrize(
    ("config", "said"), [(SIZES_OF_THE_7B, "checkpoints up to 1.9 GB"), (SIZES_OF_THE_2B, "checkpoints up to 886 MB")]
)
def test_checkpoints_take_what_the_base_s_adapter_does(
    settings: dict[str, Any], tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", **config}))
    base = BaseModel("./base", "0", tmp_path / "base")
    recipe = {**settings, "lora_r": 16, "save_total_limit": 2, "cache_vision_features": False}
    assert said in str(RunNeeds(recipe, base).check_disk())


def test_base_in_4_bits_is_for_a_recipe_in_4_bits(settings: dict[str, Any], packed_base: Path) -> None:
    packed = {**settings, "model_name_or_path": str(packed_base)}
    assert "of weights" in RunNeeds(packed).check_base()
    with pytest.raises(InputError, match="comes in 4 bits and can't be had in 16"):
        RunNeeds({**packed, "load_in_4bit": False}).check_base()


def test_folder_that_cannot_be_written_to_is_named(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(dir: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(PermissionError, match="Permission denied: '/"):
        RunNeeds(settings).check_folders()
