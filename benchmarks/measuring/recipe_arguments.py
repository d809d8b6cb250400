"""The command lines of runs that a benchmark starts itself: the 7B's YAML, with what lies where fixed beforehand.

A user's machine plans that for itself. What is compared over years, and what predictions are held to, mustn't move with
the machine: these are the recipes that the project had for cards of one size each until it planned.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from data_prep.files import from_root
from recipes.layers.sizes import ALL

CONFIG = "recipes/configs/qwen2vl_7b.yaml"

_EIGHT_GB: dict[str, Any] = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "per_device_eval_batch_size": 4,
    "embedding_on_host": True,
    "head_on_host": True,
    "optimizer_on_host": True,
    "layers_on_host": "0",
    "vision_blocks_on_host": "0",
    "cache_vision_features": False,
    "activation_checkpointing": True,
    "recomputed_layers": ALL,
    "unpack_base": False,
    "compile_layers": False,
    "cuda_graphs": False,
}
_SIX_GB = {**_EIGHT_GB, "cache_vision_features": True}
_TWO_GB = {
    **_SIX_GB,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "per_device_eval_batch_size": 8,
    "layers_on_host": ALL,
    "vision_blocks_on_host": ALL,
}
FIXED: dict[str, dict[str, Any]] = {
    "2gb": _TWO_GB,
    "4gb": {
        **_TWO_GB,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "per_device_eval_batch_size": 16,
        "recomputed_layers": "24",
    },
    "6gb": _SIX_GB,
    "8gb": _EIGHT_GB,
    "80gb": {
        **_EIGHT_GB,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "per_device_eval_batch_size": 16,
        "embedding_on_host": False,
        "head_on_host": False,
        "optimizer_on_host": False,
        "activation_checkpointing": False,
        "unpack_base": True,
        "compile_layers": True,
    },
}


def fixed_settings(recipe: str) -> dict[str, Any]:
    """Return the lines of a fixed recipe, `2gb` to `80gb`, by name."""
    lines: dict[str, Any] = yaml.safe_load(from_root(CONFIG).read_text(encoding="utf-8"))
    return {**lines, "frames_an_update": None, **FIXED[recipe]}


def fixed_arguments(recipe: str, settings: Mapping[str, Any]) -> list[str]:
    """Return sft_qwen2vl.py's arguments for a fixed recipe, with `settings` in place of its."""
    return recipe_arguments(CONFIG, {"frames_an_update": None, **FIXED[recipe], **settings})


def recipe_arguments(config: str, settings: Mapping[str, Any]) -> list[str]:
    """Return sft_qwen2vl.py's arguments for a YAML, a path from the project's root, with `settings` in place of its."""
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return ["--config", str(from_root(config)), *flags]
