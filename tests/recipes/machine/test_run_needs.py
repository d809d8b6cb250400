"""Each check of doctor.py where what it looks at is wrong; test_demo runs the script where all is well."""

import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import bitsandbytes
import pytest
import torch
import yaml
from huggingface_hub import constants

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from data_prep.hub.source import open_dataset
from recipes import doctor
from recipes.machine import host_system, run_needs
from recipes.machine.run_needs import FAILED, OK, SKIPPED, examine
from recipes.model.base import BaseModel, find_base
from tests.recipes.machine.test_memory import CONFIG as SIZES_OF_THE_7B
from tests.recipes.machine.test_memory import CONFIG_2B as SIZES_OF_THE_2B
from tests.tiny_data import many_clips, write_data


@pytest.fixture
def settings(tmp_path: Path, small_base: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The demo's YAML on a data folder of its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    demo = yaml.safe_load((PROJECT_ROOT / "recipes/configs/demo_cpu.yaml").read_text())
    data = write_data(tmp_path / "data", many_clips())
    places = {"output_dir": str(tmp_path / "run"), "vision_cache": str(tmp_path / "vision")}
    return {**demo, "dataset": str(data), "model_name_or_path": str(small_base), **places}


@pytest.fixture
def base(small_base: Path) -> list[BaseModel]:
    return [find_base(str(small_base))]


def test_all_is_looked_at_in_order_and_nothing_left_behind(settings: dict[str, Any], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    findings = list(examine(settings))
    assert [(finding.check, finding.state) for finding in findings] == [
        ("system", OK),
        ("packages", OK),
        ("GPU", SKIPPED),
        ("4-bit product", OK),
        ("base model", OK),
        ("data set", OK),
        ("memory", SKIPPED),
        ("disk", OK),
        ("folders", OK),
    ]
    assert "no audit is known of it" in findings[5].text
    assert sorted(tmp_path.rglob("*")) == before


def test_one_failure_hides_no_other(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    broken = {**settings, "use_cpu": False, "model_name_or_path": "plant/absent", "dataset": "local/absent"}
    states = {finding.check: finding.state for finding in examine(broken)}
    assert [check for check, state in states.items() if state == FAILED] == ["GPU", "base model", "data set"]
    assert states["memory"] == SKIPPED and states["folders"] == OK


def test_other_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def other(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"trl": "0.1", "torch": version("torch").partition("+")[0] + "+cu128"}.get(name, version(name))

    monkeypatch.setattr(importlib.metadata, "version", other)
    with pytest.raises(InputError, match=r"^trl is 0\.1, not [0-9.]+; peft is missing, not [0-9.]+; run pip install"):
        run_needs.check_packages()


def test_gpu_is_named_with_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card = SimpleNamespace(name="NVIDIA RTX A1000", total_memory=8 * 2**30, major=8, minor=6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 570.86.15\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = run_needs.check_gpu(needed=True)
    assert str(found).startswith("NVIDIA RTX A1000, 8.0 GiB, compute capability 8.6; driver 570.86.15, torch is")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="2 are visible, and training uses one; set CUDA_VISIBLE_DEVICES=0"):
        run_needs.check_gpu(needed=True)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert host_system.driver_in_words() == "driver unknown, because nvidia-smi doesn't run"


def test_library_that_breaks_hides_no_other_check(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("a kernel\nis missing")

    monkeypatch.setattr(run_needs, "check_four_bits", fail)
    findings = {finding.check: finding for finding in examine(settings)}
    assert findings["4-bit product"].text == "RuntimeError: a kernel is missing"
    assert (findings["4-bit product"].state, findings["folders"].state) == (FAILED, OK)


def test_wrong_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitsandbytes, "matmul_4bit", lambda rows, weight, quant_state: torch.zeros(64, 1024))
    with pytest.raises(InputError, match=r"bitsandbytes is 100\.0% off a plain product on cpu"):
        run_needs.check_four_bits(on_cpu=True)

    def fail(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("no kernel image is available\nfor execution")

    monkeypatch.setattr(bitsandbytes, "matmul_4bit", fail)
    with pytest.raises(InputError, match=r"bitsandbytes fails on cpu: no kernel image is available$"):
        run_needs.check_four_bits(on_cpu=True)


@pytest.mark.parametrize(
    ("free_bytes", "said"),
    [(2**20, "the card has 0.0 GiB free, and about 0.1 are needed; none of the project's recipes"), (2**36, None)],
)
def test_memory_is_compared_with_what_the_card_has_free(
    settings: dict[str, Any], base: list[BaseModel], monkeypatch: pytest.MonkeyPatch, free_bytes: int, said: str | None
) -> None:
    monkeypatch.setattr("recipes.model.device.free_memory", lambda device: float(free_bytes))
    if said:
        with pytest.raises(InputError, match=said):
            run_needs.check_memory(settings, base, gpu_found=True)
    else:
        found = run_needs.check_memory(settings, base, gpu_found=True)
        assert "of 64.0 GiB on the card" in str(found)
        assert "the best recipe for this card is recipes/configs/qwen2vl_7b_80gb.yaml" in str(found)


def test_full_disk_is_named_with_what_it_lacks(
    settings: dict[str, Any], base: list[BaseModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=rf"vision features: .* needed in {tmp_path / 'vision'}, and 1 kB are free"):
        run_needs.check_disk(settings, base, [open_dataset(settings["dataset"])])
    for size, needed in (("7B", r"16\.6"), ("2B", r"4\.4")):
        with pytest.raises(InputError, match=rf"the base model: {needed} GB needed in"):
            run_needs.check_disk({**settings, "model_name_or_path": f"Qwen/Qwen2-VL-{size}-Instruct"}, [], [])
    found = run_needs.check_disk({**settings, "model_name_or_path": "plant/other"}, [], [])
    assert found == run_needs.Finding(
        "disk", SKIPPED, "what base model 'plant/other' takes isn't known before it is here"
    )


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
    assert said in str(run_needs.check_disk(recipe, [base], []))


def test_truncated_base_is_told(settings: dict[str, Any], tmp_path: Path, small_base: Path) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    findings = {finding.check: finding for finding in examine({**settings, "model_name_or_path": str(file.parent)})}
    assert findings["base model"].state == FAILED
    assert "weight file model.safetensors is truncated or damaged" in findings["base model"].text


def test_base_in_4_bits_is_for_a_recipe_in_4_bits(settings: dict[str, Any], packed_base: Path) -> None:
    packed = {**settings, "model_name_or_path": str(packed_base)}
    assert "of weights" in run_needs.check_base(packed, [])
    with pytest.raises(InputError, match="comes in 4 bits and can't be had in 16"):
        run_needs.check_base({**packed, "load_in_4bit": False}, [])


def test_folder_that_cannot_be_written_to_is_named(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(dir: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(PermissionError, match="Permission denied: '/"):
        run_needs.check_folders(settings)


def test_yaml_of_a_few_lines_has_the_libraries_defaults_and_flags_override_it(
    settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    few = ("model_name_or_path", "output_dir", "vision_cache", "max_pixels")
    config.write_text(yaml.safe_dump({"dataset": "local/absent", **{name: settings[name] for name in few}}))
    status = doctor.main(
        ["--config", str(config), "--json", "--use_cpu", "--bf16=false", "--dataset", str(settings["dataset"])]
    )
    states = {line["check"]: line["state"] for line in map(json.loads, capfd.readouterr().out.splitlines())}
    assert {check for check, state in states.items() if state == "FAILED"} <= {"packages"}
    assert states["disk"] == states["data set"] == "ok"
    assert status == (states["packages"] == "FAILED")


def test_status_says_whether_a_check_failed(
    settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**settings, "dataset": "local/absent"}))
    assert doctor.main(["--config", str(config)]) == 1
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == [
        *("system", "packages", "GPU", "4-bit", "base", "data", "memory", "disk", "folders")
    ]
    assert err.endswith("run.yaml: 1 of the checks failed\n")
