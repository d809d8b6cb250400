"""An adapter is described, loaded and checked."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file

from data_prep.errors import InputError
from recipes.adapter.lora import load_adapter, lora_config
from recipes.layers.sizes import LLM_LINEARS
from tests.recipes.model.test_loading import load

LORA: dict[str, Any] = {"r": 4, "alpha": 8, "dropout": 0.0, "use_rslora": False}


@pytest.fixture(scope="module")
def saved_adapter(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = lora_config(target_modules=LLM_LINEARS, **LORA)
    get_peft_model(load(small_base), config).save_pretrained(folder)
    return folder


def test_adapter_on_the_vision_tower_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("lora_target_modules: qkv not among q_proj, k_proj")):
        lora_config(target_modules=["q_proj", "qkv"], **LORA)


def test_adapter_is_loaded_in_fp32_and_frozen(small_base: Path, saved_adapter: Path) -> None:
    model = load_adapter(load(small_base, dtype=torch.bfloat16), saved_adapter)
    adapter = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    assert len(adapter) == 2 * 7 * 4
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    assert not any(weight.requires_grad for weight in adapter.values())
    assert not model.training


def test_loading_asks_no_hub_about_the_base(
    small_base: Path, saved_adapter: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    shutil.copytree(saved_adapter, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "plant/absent"}))
    load_adapter(load(small_base), tmp_path / "adapter")
    assert not [warning for warning in recwarn if "plant/absent" in str(warning.message)]


def test_damaged_adapter_is_refused(small_base: Path, saved_adapter: Path, tmp_path: Path) -> None:
    weights = load_file(saved_adapter / "adapter_model.safetensors")
    missing = min(weights)
    del weights[missing]
    (tmp_path / "adapter_config.json").write_bytes((saved_adapter / "adapter_config.json").read_bytes())
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(load(small_base), tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"1 weights are missing or unknown, among them {re.escape(missing)}"):
        load_adapter(load(small_base), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="damaged"):
        load_adapter(load(small_base), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("merge", [False, True])
def test_adapter_of_which_one_value_is_no_number_is_refused(
    small_base: Path, saved_adapter: Path, tmp_path: Path, value: float, merge: bool
) -> None:
    shutil.copytree(saved_adapter, tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = next(name for name in weights if "layers.2.mlp.up_proj.lora_B" in name)
    weights[name][3, 1] = value
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"layers\.2\.mlp\.up_proj\.lora_B.* holds values that are no numbers"):
        load_adapter(load(small_base, load_in_4bit=not merge), tmp_path / "adapter", merge=merge)
