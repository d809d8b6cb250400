"""The command line of a run that a benchmark starts itself."""

from collections.abc import Mapping
from typing import Any

from data_prep.files import from_root


def recipe_arguments(config: str, settings: Mapping[str, Any]) -> list[str]:
    """Return sft_qwen2vl.py's arguments for a YAML, a path from the project's root, with `settings` in place of its."""
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return ["--config", str(from_root(config)), *flags]


def config_of(recipe: str) -> str:
    """Return the YAML of the 7B's recipe for a card: `6gb`, `8gb` or `80gb`."""
    return f"recipes/configs/qwen2vl_7b_{recipe}.yaml"
