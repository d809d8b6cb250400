from pathlib import Path

import datasets
import pytest

from tests.tiny_data import many_clips, write_data


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", many_clips(train_per_class=2))
