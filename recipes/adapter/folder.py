"""An adapter's folder, or an export's, opened in one place: record, configuration, base. Imports no torch."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import sha256_of_file
from recipes.adapter.safety_record import FILE_NAME, Merged, SafetyRecord, read_record
from recipes.layers.sizes import LLM_LINEARS
from recipes.model.base import OF_AN_EXPORT, BaseModel, find_base, fingerprint

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

# Keys of PEFT's LoraConfig that say something whatever their value, and what this recipe computes of each.
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian"),  # others take what they add off the base's weights
    "megatron_core": ("megatron.core", None),  # of no effect without megatron_config
}
_FREE = {
    *("base_model_name_or_path", "revision", "peft_version", "inference_mode"),  # compared or said elsewhere
    *("r", "lora_alpha", "use_rslora"),  # the scaling, which PEFT works out
    "lora_dropout",  # of no effect on an answer
    "qalora_group_size",  # of no effect without use_qalora
    "target_modules",
}


@dataclass(frozen=True)
class Adapter:
    """A finished run's adapter: where it lies, how it was trained and is to be asked, and the base it belongs on.

    Of an export the base is the folder's own model, which has the adapter in it.
    """

    folder: Path
    record: SafetyRecord
    base: BaseModel

    def values(self) -> dict[str, Any]:
        """Return what its size on a card depends on, by the names that a run's settings have."""
        record, config = self.record, {"r": 0, "target_modules": LLM_LINEARS}
        if not record.merged:
            config = json.loads((self.folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return {
            "dtype": record.dtype,
            "load_in_4bit": record.load_in_4bit,
            "max_pixels": record.max_pixels,
            "lora_r": config["r"],
            "lora_target_modules": config["target_modules"],
        }

    def sha256(self) -> str:
        """Return the hash of its weights' file; of an export that of the adapter it was made of."""
        merged = self.record.merged
        return merged.adapter_sha256 if merged else sha256_of_file(self.folder / WEIGHTS_FILE)


def find_adapter(folder: Path) -> Adapter:
    """Open the adapter in `folder`, and find its base; the base is downloaded where it isn't on this machine.

    An export, which needs no base, is opened likewise. Raises InputError where there is no finished adapter, where it
    isn't a LoRA adapter of the kind that is trained here, where its base can't be had or is another than it was trained
    on, and where an export's files aren't those that were written; OSError where a file may not be read.
    """
    record = read_record(folder)
    if record.merged:
        return Adapter(folder, record, _exported_model(folder, record.merged))
    _check_config(folder, record)
    if not (folder / WEIGHTS_FILE).is_file():
        raise InputError(f"adapter {folder}: {WEIGHTS_FILE} is missing; train it again")
    (folder / WEIGHTS_FILE).open("rb").close()  # where it may not be read, that is told before anything is loaded
    base = find_base(record.base_model, record.base_revision)
    if not base.is_at(record.base_revision):
        raise InputError(
            f"adapter {folder} was trained on {record.base_model!r} of revision {record.base_revision[:12]}; what lies "
            f"there now is {base.revision[:12]}; restore that base or train again"
        )
    return Adapter(folder, record, base)


def check_free(out: Path) -> None:
    """Raise InputError where something stands in the place of an export that is to be written."""
    if os.path.lexists(out):
        raise InputError(f"--out {out} exists, and nothing is overwritten; remove it or name another folder")


def _exported_model(folder: Path, merged: Merged) -> BaseModel:
    model = find_base(str(folder))
    if fingerprint(folder, OF_AN_EXPORT, without=FILE_NAME) != merged.fingerprint:
        raise InputError(
            f"export {folder}: its files aren't those that were written, and its figures and threshold aren't theirs; "
            "fetch it again, or export again"
        )
    return model


def _check_config(folder: Path, record: SafetyRecord) -> None:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        named = config["base_model_name_or_path"]
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError):
        raise InputError(f"adapter {folder}: {CONFIG_FILE} is missing or damaged; train it again") from None
    if named != record.base_model:
        raise InputError(f"adapter {folder} is for base {named!r}, but safety.json says {record.base_model!r}")
    if foreign := foreign_settings(config):
        raise InputError(
            f"adapter {folder}: {', '.join(foreign)} in {CONFIG_FILE} is not computed here, only plain LoRA on "
            f"{', '.join(LLM_LINEARS)}; train it again with recipes/sft_qwen2vl.py"
        )


def foreign_settings(config: Mapping[str, Any]) -> list[str]:
    """Return the lines of an adapter_config.json that ask for anything but plain LoRA on the seven linears.

    A key that isn't known here passes where its value is that of something switched off: null, false or empty.
    """
    foreign = []
    for name, value in sorted(config.items()):
        if name in _ALLOWED:
            computed = any(value is allowed or value == allowed for allowed in _ALLOWED[name])
        elif name == "target_modules":
            computed = isinstance(value, list) and bool(value) and set(value) <= set(LLM_LINEARS)
        else:
            computed = name in _FREE or value is None or value is False or value in ({}, [])
        if not computed:
            foreign.append(f"{name} {json.dumps(value)}")
    return foreign + [f"{name} (missing)" for name in ("peft_type", "target_modules", "r") if name not in config]
