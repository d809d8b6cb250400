"""Which of the project's recipes fits a machine. No torch."""

from collections.abc import Mapping
from typing import Any

import yaml

from data_prep.files import PROJECT_ROOT
from recipes.machine.memory import predict_memory, shortages

FASTEST_FIRST = ("qwen2vl_7b_80gb", "qwen2vl_7b_8gb", "qwen2vl_7b_6gb", "qwen2vl_7b_4gb", "qwen2vl_7b_2gb")


def recipe_settings(name: str) -> dict[str, Any]:
    """Return the lines of one of the project's own YAMLs."""
    settings: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "recipes/configs" / f"{name}.yaml").read_text())
    return settings


def best_recipe(config: Mapping[str, Any], *, card_bytes: float, host_bytes: float) -> str | None:
    """Return the path of the fastest of the project's recipes that fits a base of that `config`, None where none does.

    Paths are from the project's root.
    """
    for name in FASTEST_FIRST:
        need = predict_memory(recipe_settings(name), config)
        if not shortages(need, card_bytes=card_bytes, host_bytes=host_bytes):
            return f"recipes/configs/{name}.yaml"
    return None
