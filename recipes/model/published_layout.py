"""Qwen2-VL's files in the layout that Qwen publishes them in, which every engine reads. Imports no torch.

transformers 5 saves a base with nested settings, at times other names of tensors, and one file for both processors;
4.57 and other engines can't read those. What is told here was compared with the published 7B's own files.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import as_json
from recipes.layers.sizes import text_config, ties_head
from recipes.model.base_files import ARCHITECTURE, CONFIG_FILE, MODEL_TYPE, read_config

PREPROCESSOR_FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"

# What is copied as it is, where a base has it.
_AS_THEY_ARE = (
    *("generation_config.json", "chat_template.jinja", "chat_template.json", "added_tokens.json"),
    *(TOKENIZER_FILE, VOCABULARY_FILE, MERGES_FILE),
)
_OF_NEWER_VERSIONS = {"layer_types", "dtype", "model_type", "rope_parameters", "rope_type", "transformers_version"}
_HOW_IT_WAS_LOADED = ("backend", "is_local", "local_files_only", "name_or_path")
_VISION = (
    *("depth", "embed_dim", "mlp_ratio", "num_heads", "in_chans", "hidden_size"),
    *("patch_size", "spatial_merge_size", "spatial_patch_size", "temporal_patch_size"),
)
_PREPROCESSOR = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")


def published_name(tensor: str) -> str:
    """Return a tensor's name as published: `model.layers.0…`, `visual.blocks.0…`, whoever saved the file."""
    return re.sub(r"^model\.(?=visual\.)", "", re.sub(r"^model\.language_model\.", "model.", tensor))


def published_config(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return a config.json as published, flat, for weights that are kept in `dtype` and in nothing smaller.

    Raises InputError where it lacks a size that the published one says.
    """
    text, vision = text_config(config), config["vision_config"]
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    outer = {name: value for name, value in config.items() if name not in ("text_config", "rope_scaling")}
    if (kind := rope.get("type") or rope.get("rope_type")) not in ("mrope", "default"):
        raise InputError(f"the base's {CONFIG_FILE} asks for rope of kind {kind!r}, which the published layout has not")
    try:
        flat = {
            **{name: value for name, value in text.items() if name not in _OF_NEWER_VERSIONS},
            **{name: value for name, value in outer.items() if name not in _OF_NEWER_VERSIONS},
            "rope_theta": text.get("rope_theta") or rope["rope_theta"],
            "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
            "tie_word_embeddings": ties_head(config),
            "vision_config": _published_vision(vision),
        }
    except KeyError as error:
        raise InputError(f"the base's {CONFIG_FILE} says nothing of {error}; fetch it again") from None
    for name in ("quantization_config", "_name_or_path"):
        flat.pop(name, None)
    if flat.get("pad_token_id") is None:
        flat.pop("pad_token_id", None)
    named = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE, "torch_dtype": dtype}
    return dict(sorted({**flat, **named}.items()))


def _published_vision(vision: Mapping[str, Any]) -> dict[str, Any]:
    """Return the vision tower's part of a config.json as published; what it doesn't say is the same in every tower."""
    own = {
        **vision,
        "in_chans": vision.get("in_chans", vision.get("in_channels", 3)),
        "spatial_patch_size": vision.get("spatial_patch_size", vision.get("patch_size", 14)),
    }
    sizes = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "mlp_ratio": 4, **own}
    return {name: sizes[name] for name in _VISION}


def published_files(name: str, folder: Path, dtype: str, max_pixels: int | None = None) -> dict[str, bytes]:
    """Return what stands beside a base's weights, by file name, as published; `max_pixels` replaces its own limit.

    The weights are kept in `dtype`. Raises InputError where the base `name` in `folder` lacks a file that nothing else
    of its files gives, or where one is damaged.
    """
    files = {each: (folder / each).read_bytes() for each in _AS_THEY_ARE if (folder / each).is_file()}
    tokenizer_config = _read(name, folder, TOKENIZER_CONFIG_FILE)
    files[CONFIG_FILE] = as_json(published_config(read_config(name, folder), dtype))
    files[TOKENIZER_CONFIG_FILE] = as_json(_published_tokenizer(tokenizer_config))
    files[PREPROCESSOR_FILE] = as_json(_published_preprocessor(name, folder, max_pixels))
    if TOKENIZER_FILE not in files:
        raise InputError(f"base model {name!r}: {TOKENIZER_FILE} is missing; fetch it again")
    if not {VOCABULARY_FILE, MERGES_FILE} <= files.keys():
        files |= _vocabulary(name, _read(name, folder, TOKENIZER_FILE))
    if "chat_template" not in tokenizer_config and not any(each.startswith("chat_template") for each in files):
        raise InputError(f"base model {name!r}: its chat template is missing; fetch it again")
    return files


def _published_preprocessor(name: str, folder: Path, max_pixels: int | None) -> dict[str, Any]:
    """Return preprocessor_config.json, which newer versions keep within processor_config.json."""
    if (folder / PREPROCESSOR_FILE).is_file():
        own = _read(name, folder, PREPROCESSOR_FILE)
    else:
        own = _read(name, folder, PROCESSOR_FILE).get("image_processor") or {}
    size = own["size"] if isinstance(own.get("size"), dict) else {}
    limits = {
        "min_pixels": own.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels"),
        "max_pixels": max_pixels or own.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels"),
    }
    lacking = [each for each in _PREPROCESSOR if each not in own] + [each for each, at in limits.items() if at is None]
    if lacking:
        raise InputError(f"base model {name!r}: its image processor's settings lack {lacking[0]}; fetch it again")
    return {
        **limits,
        **{each: own[each] for each in _PREPROCESSOR},
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
    }


def _published_tokenizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer_config.json in the words that older versions read, too."""
    own = {name: value for name, value in config.items() if name not in _HOW_IT_WAS_LOADED}
    if own.get("tokenizer_class") == "TokenizersBackend":
        own["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(own.get("extra_special_tokens"), list):
        own["additional_special_tokens"] = own.pop("extra_special_tokens")
    return own


def _vocabulary(name: str, tokenizer: Mapping[str, Any]) -> dict[str, bytes]:
    """Return vocab.json and merges.txt of a byte-level BPE's tokenizer.json."""
    try:
        vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    except (KeyError, TypeError):
        raise InputError(f"base model {name!r}: {TOKENIZER_FILE} holds no byte-level BPE; fetch it again") from None
    merges = [each if isinstance(each, str) else " ".join(each) for each in merges]
    return {
        VOCABULARY_FILE: json.dumps(vocabulary, ensure_ascii=False).encode(),
        MERGES_FILE: "\n".join(["#version: 0.2", *merges, ""]).encode(),
    }


def _read(name: str, folder: Path, file: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"base model {name!r}: {file} is missing; fetch it again") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"base model {name!r}: {file} is damaged; fetch it again")
    return found
