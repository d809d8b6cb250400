"""What a base model's files say of it before any weight is loaded: which model it is, what is in 4 bits, whether all of
it is there. Imports neither torch nor transformers.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from data_prep.disk.disk_errors import named, told
from data_prep.errors import InputError
from recipes.layers.sizes import ATTENTION_LINEARS, linear_shapes, quantization, text_config, ties_head

MODEL_TYPE = "qwen2_vl"
ARCHITECTURE = "Qwen2VLForConditionalGeneration"
CONFIG_FILE = "config.json"
WEIGHT_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
USABLE = "Qwen/Qwen2-VL-2B-Instruct or Qwen/Qwen2-VL-7B-Instruct"

# Written beside each weight that bitsandbytes holds in 4 bits.
_STATE = re.compile(r"\.weight\.quant_state\.bitsandbytes__(nf4|fp4)$")
# The language model's names as published, and as newer versions of transformers save them.
_LANGUAGE = re.compile(r"^model\.(?!visual\.)(language_model\.)?")


@dataclass(frozen=True)
class Stored:
    """A tensor as a file's header describes it; `dtype` is safetensors' name, such as BF16 or U8."""

    shape: tuple[int, ...]
    dtype: str


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """Return the config.json of base model `name`. Raises InputError where it is missing or damaged."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"base model {name!r}: {CONFIG_FILE} is missing, so this is no model folder")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"base model {name!r}: {CONFIG_FILE} is damaged; fetch it again")
    return config


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Raise InputError unless a base's configuration is Qwen2-VL's, in 16 or 32 bits or in bitsandbytes' 4 bits."""
    if config["model_type"] != MODEL_TYPE:
        raise InputError(
            f"base model {name!r} is a {config['model_type']!r}; this recipe trains {MODEL_TYPE!r} only, such as "
            f"{USABLE}"
        )
    architectures = config.get("architectures") or [ARCHITECTURE]
    if ARCHITECTURE not in architectures:
        raise InputError(f"base model {name!r} is a {architectures[0]}, not a {ARCHITECTURE}; use {USABLE}")
    try:
        language_linears(config), text_config(config)["vocab_size"], config["vision_config"]["hidden_size"]
    except (KeyError, TypeError):
        raise InputError(f"base model {name!r}: {CONFIG_FILE} is damaged; fetch it again") from None
    _check_quantization(name, config)


def _check_quantization(name: str, config: Mapping[str, Any]) -> None:
    settings = quantization(config)
    if settings is None:
        return
    method = "bitsandbytes' 8 bits" if settings.get("load_in_8bit") else settings.get("quant_method")
    if settings.get("load_in_8bit") or not settings.get("load_in_4bit"):
        raise InputError(
            f"base model {name!r} is quantized ({method}), which isn't trained here; use one in 16 bits, such as "
            f"{USABLE}: load_in_4bit: true packs it"
        )
    if (storage := settings.get("bnb_4bit_quant_storage") or "uint8") != "uint8":
        raise InputError(
            f"base model {name!r} keeps its 4-bit weights as {storage}, and only uint8 is read here; use one in 16 "
            f"bits, such as {USABLE}"
        )


def check_precision(name: str, config: Mapping[str, Any], *, load_in_4bit: bool) -> None:
    """Raise InputError where a base that comes in 4 bits is wanted in 16."""
    if quantization(config) is not None and not load_in_4bit:
        raise InputError(
            f"base model {name!r} comes in 4 bits and can't be had in 16; set load_in_4bit to true (unpack_base: true "
            "computes in 16 bits from there), or use the base it was made from"
        )


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files that hold a base's weights, as transformers chooses them.

    Raises InputError where the index is damaged.
    """
    if (folder / WEIGHT_FILE).is_file() or not (folder / INDEX_FILE).is_file():
        return [WEIGHT_FILE]
    return sorted(set(read_index(folder / INDEX_FILE).values()))


def read_index(file: Path) -> dict[str, str]:
    """Return which weight file holds each tensor. Raises InputError where the index is damaged."""
    try:
        weight_map: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        plain = all(isinstance(shard, str) and Path(shard).name == shard for shard in weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        plain = False
    if not plain or not weight_map:
        raise InputError(f"{file}: this index of the base model's weights is damaged; fetch it again")
    return weight_map


def check_packed(name: str, tensors: Collection[str], config: Mapping[str, Any]) -> None:
    """Raise InputError unless, by the tensors' names, the language model's linears are in 4 bits, or nothing is.

    The vision tower answers noticeably worse in 4 bits, and an adapter is computed on these seven linears alone.
    """
    packed = {_own_name(_STATE.sub("", tensor)) for tensor in tensors if _STATE.search(tensor)}
    expected = set(language_linears(config)) if quantization(config) is not None else set()
    if differing := sorted(packed ^ expected):
        how = "in" if differing[0] in packed else "not in"
        raise InputError(
            f"base model {name!r}: {differing[0]} is {how} 4 bits ({len(differing)} such in all); here all linears of "
            f"the language model are, or none, and nothing else is; use one in 16 bits, such as {USABLE}: "
            "load_in_4bit: true packs it"
        )


def check_weights(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError unless every weight file is whole and holds the tensors that index and configuration promise.

    Headers alone are read.
    """
    files = weight_files(folder)
    if missing := [file for file in files if not (folder / file).is_file()]:
        with_what = "" if _is_folder(name) else f" with 'hf download {name}'"
        raise InputError(
            f"base model {name!r}: weight file {missing[0]} is missing ({len(missing)} in all); finish the download"
            f"{with_what}"
        )
    stored = {file: read_header(name, folder / file) for file in files}
    if files != [WEIGHT_FILE]:
        for tensor, file in read_index(folder / INDEX_FILE).items():
            if tensor not in stored[file]:
                raise InputError(
                    f"base model {name!r}: weight file {file} lacks {tensor}, which {INDEX_FILE} promises; "
                    f"{_fetch(name, file)}"
                )
    tensors = {tensor: each for header in stored.values() for tensor, each in header.items()}
    check_packed(name, tensors, config)
    _check_language_model(name, {_own_name(tensor): each for tensor, each in tensors.items()}, config)


def _is_folder(name: str) -> bool:
    return name.startswith((".", "/"))


def _fetch(name: str, file: str) -> str:
    """Say how to have a file anew; without the flag, the Hub's cache would give back what it holds."""
    return "fetch it again" if _is_folder(name) else f"fetch it again with 'hf download {name} {file} --force-download'"


def read_header(name: str, file: Path) -> dict[str, Stored]:
    """Return the tensors of a weight file of base model `name`. Raises InputError where it is truncated or damaged."""
    try:
        with named(file), safe_open(file, framework="np") as weights:
            slices = {tensor: weights.get_slice(tensor) for tensor in weights.keys()}  # noqa: SIM118  # no mapping
            return {tensor: Stored(tuple(each.get_shape()), each.get_dtype()) for tensor, each in slices.items()}
    except (SafetensorError, OSError) as error:
        if told(error):
            raise
        raise InputError(
            f"base model {name!r}: weight file {file.name} is truncated or damaged ({error}); {_fetch(name, file.name)}"
        ) from None


def _check_language_model(name: str, tensors: Mapping[str, Stored], config: Mapping[str, Any]) -> None:
    """Raise InputError unless the language model's matrices are all there, in the shapes that the configuration has.

    `tensors` go by the names of _own_name.
    """
    text = text_config(config)
    table = (text["vocab_size"], text["hidden_size"])
    packed = language_linears(config) if quantization(config) is not None else {}
    expected = {**language_linears(config), "embed_tokens": table, **({} if ties_head(config) else {"lm_head": table})}
    for module, shape in expected.items():
        found = tensors.get(f"{module}.weight")
        if found is None:
            raise InputError(f"base model {name!r}: {module}.weight is missing from its weight files; fetch them again")
        size = 2 * math.prod(found.shape)  # two weights to a byte
        fits = size == math.prod(shape) and found.dtype == "U8" if module in packed else found.shape == shape
        if not fits:
            raise InputError(
                f"base model {name!r}: {module}.weight has shape {list(found.shape)} ({found.dtype}) where "
                f"{CONFIG_FILE} wants {list(shape)}; its files are of different models, fetch them again"
            )


def language_linears(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the (out, in) shape of each of the language model's linears, by the names of _own_name."""
    text = text_config(config)
    return {
        f"layers.{layer}.{'self_attn' if linear in ATTENTION_LINEARS else 'mlp'}.{linear}": shape
        for layer in range(text["num_hidden_layers"])
        for linear, shape in linear_shapes(text).items()
    }


def _own_name(tensor: str) -> str:
    """Return a name without what the language model's stands under: layers.0.mlp.up_proj, whoever saved the file."""
    return _LANGUAGE.sub("", tensor)
