"""What a run is to need: the demo's YAML on a data folder of its own, and the small base."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from data_prep.files import PROJECT_ROOT
from recipes.model.base import BaseModel, find_base
from tests.tiny_data import many_clips, write_data


@pytest.fixture
def settings(tmp_path: Path, small_base: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The demo's YAML on a data folder of its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    demo = yaml.safe_load((PROJECT_ROOT / "recipes/configs/demo_cpu.yaml").read_text())
    data = write_data(tmp_path / "data", many_clips())
    places = {"output_dir": str(tmp_path / "run"), "vision_cache": str(tmp_path / "vision")}
    return {**demo, "dataset": str(data), "model_name_or_path": str(small_base), "frames_an_update": None, **places}


@pytest.fixture
def base(small_base: Path) -> BaseModel:
    return find_base(str(small_base))
