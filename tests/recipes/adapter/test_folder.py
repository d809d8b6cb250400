"""Whose adapters are opened, and on which base: what PEFT would compute and this recipe wouldn't is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig

from data_prep.errors import InputError
from recipes.adapter.folder import find_adapter, foreign_settings
from recipes.layers.sizes import LLM_LINEARS
from recipes.model.base import find_base
from tests.recipes.adapter.test_safety_record import RECORD

# As an SFTTrainer that was given a plain LoraConfig saves it.
PLAIN = {**LoraConfig(task_type="CAUSAL_LM", target_modules=LLM_LINEARS, lora_dropout=0.05).to_dict()}
PLAIN |= {"target_modules": [*LLM_LINEARS], "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True}


@pytest.fixture
def folder(tmp_path: Path, small_base: Path) -> Path:
    """A finished run's folder as far as it is looked at before anything is loaded."""
    base = find_base(str(small_base))
    replace(RECORD, base_model=base.name, base_revision=base.revision).write(tmp_path)
    write_config(tmp_path)
    (tmp_path / "adapter_model.safetensors").touch()
    return tmp_path


def write_config(folder: Path, **changes: Any) -> None:
    config = {**json.loads(json.dumps(PLAIN, default=list)), "base_model_name_or_path": "./tiny_base/weights"}
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))


def test_adapter_travels_with_its_record_and_base(folder: Path, small_base: Path) -> None:
    adapter = find_adapter(folder)
    assert adapter.folder == folder
    assert adapter.base == find_base(str(small_base))
    assert adapter.record.base_revision == adapter.base.revision


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "safety.json"])
def test_file_that_may_not_be_read_is_not_called_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened = Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == folder / name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=name):
        find_adapter(folder)


def test_base_must_be_the_one_trained_on(folder: Path, small_base: Path) -> None:
    name = find_base(str(small_base)).name
    replace(RECORD, base_model=name, base_revision="0123").write(folder)
    with pytest.raises(InputError, match=r"was trained on .* of revision 0123; what lies there now is"):
        find_adapter(folder)
    write_config(folder, base_model_name_or_path="another/base")
    with pytest.raises(InputError, match="is for base 'another/base'"):
        find_adapter(folder)


@pytest.mark.parametrize("damage", [None, "{", "[]", "{}"])
def test_missing_or_damaged_configuration_is_said(folder: Path, damage: str | None) -> None:
    (folder / "adapter_config.json").unlink()
    if damage is not None:
        (folder / "adapter_config.json").write_text(damage)
    with pytest.raises(InputError, match=r"adapter_config\.json is missing or damaged"):
        find_adapter(folder)


def test_missing_weights_are_said(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing; train it again"):
        find_adapter(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "qkv"]},
        {"target_modules": "all-linear"},
        {"target_modules": ".*language_model.*q_proj"},
        {"target_modules": []},
        {"target_parameters": ["mlp.experts.gate_up_proj"]},
        {"trainable_token_indices": [0, 1]},
        {"layers_to_transform": [0]},
        {"layer_replication": [[0, 2], [1, 3]]},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 4}},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"use_qalora": True},
        {"fan_in_fan_out": True},
        {"alora_invocation_tokens": [5]},
        {"megatron_config": {}, "megatron_core": "os"},
        {"exclude_modules": ["q_proj"]},
        {"peft_type": "IA3"},
        {"task_type": "SEQ_CLS"},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
        {"something_new": 1},
    ],
    ids=str,
)
def test_what_is_not_computed_here_is_refused_by_name(folder: Path, changes: dict[str, Any]) -> None:
    write_config(folder, **changes)
    name = [name for name in changes if name != "megatron_config"][-1]
    with pytest.raises(InputError, match=rf"{re.escape(name)} .*is not computed here, only plain LoRA") as refused:
        find_adapter(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True, "r": 64, "lora_alpha": 16},
        {"target_modules": ["q_proj"]},
        {"init_lora_weights": "gaussian"},
        {"task_type": None},
        {"inference_mode": False, "revision": "main", "peft_version": "0.12.0"},
        {"something_new": None, "something_else": {}},
    ],
    ids=str,
)
def test_plain_lora_is_taken_whoever_trained_it(folder: Path, changes: dict[str, Any]) -> None:
    write_config(folder, **changes)
    find_adapter(folder)


@pytest.mark.parametrize("missing", ["peft_type", "target_modules", "r"])
def test_what_peft_would_fill_in_must_be_there(missing: str) -> None:
    assert foreign_settings({name: value for name, value in PLAIN.items() if name != missing}) == [
        f"{missing} (missing)"
    ]
