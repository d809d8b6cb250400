"""Whether a run fits the machine it is to run on, and which of the project's recipes would. Imports no torch."""

from collections.abc import Mapping
from typing import Any

import yaml

from data_prep.files import PROJECT_ROOT
from recipes.machine.memory import GIB, MemoryNeed, predict_memory

FASTEST_FIRST = ("qwen2vl_7b_80gb", "qwen2vl_7b_8gb", "qwen2vl_7b_6gb")
RESERVED = 1.04  # times what is allocated: torch's allocator holds so much in the measured runs (benchmarks/README.md)
PROCESS_BYTES = 4 * GIB  # Python, libraries, CUDA's own host memory and the loading processes, about


def recipe_settings(name: str) -> dict[str, Any]:
    """Return the lines of one of the project's own YAMLs."""
    settings: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "recipes/configs" / f"{name}.yaml").read_text())
    return settings


def shortages(need: MemoryNeed, *, card_bytes: float, host_bytes: float) -> list[str]:
    """Say in words what of a prediction exceeds the free memory of card and host, given in bytes; [] where all fits."""
    card, host = RESERVED * need.card_gib * GIB, need.host_gib * GIB + PROCESS_BYTES
    return [
        f"{where} has {free / GIB:.1f} GiB free, and about {needed / GIB:.1f} are needed"
        for where, free, needed in (("the card", card_bytes, card), ("host memory", host_bytes, host))
        if needed > free
    ]


def best_recipe(config: Mapping[str, Any], *, card_bytes: float, host_bytes: float) -> str | None:
    """Return the path of the fastest of the project's recipes that fits a base of that `config`, None where none does.

    Paths are from the project's root.
    """
    for name in FASTEST_FIRST:
        need = predict_memory(recipe_settings(name), config)
        if not shortages(need, card_bytes=card_bytes, host_bytes=host_bytes):
            return f"recipes/configs/{name}.yaml"
    return None
