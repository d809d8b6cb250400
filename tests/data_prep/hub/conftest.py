from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from data_prep.rows.dataset import build_dataset
from tests.tiny_data import many_clips, write_data

REPO_ID = "local/safe-unsafe-frames"


def use_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Point both libraries at `home` as HF_HOME would, and take them offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets.disable_progress_bars()
    use_home(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[datasets.DatasetDict]:
    """Three data sets that differ in the answer of their first test row or in their clips."""
    folder = tmp_path_factory.mktemp("versions")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "hf")
        data = write_data(folder / "data", many_clips(train_per_class=2))
        first = build_dataset(data)
        text = (data / "test.jsonl").read_text()
        (data / "test.jsonl").write_text(text.replace('"UNSAFE"', '"SAFE"', 1))
        second = build_dataset(data)
        (data / "test.jsonl").write_text(text.replace("CCTV", "video"))
        return [first, second, build_dataset(data)]
