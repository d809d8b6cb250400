import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from data_prep.errors import InputError
from recipes.base_model import find_base

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cache_model(hub_cache: Path, base: Path, name: str) -> Path:
    """Lay a model out as a download leaves it."""
    repo = hub_cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    shutil.copytree(base, snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_cached_hub_model_is_found_offline_by_its_commit(hub_cache: Path, small_base: Path) -> None:
    snapshot = cache_model(hub_cache, small_base, "plant/small")
    base = find_base("plant/small")
    assert (base.name, base.revision, base.folder) == ("plant/small", COMMIT, snapshot)


def test_nothing_is_downloaded_where_that_is_not_wanted(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match="'plant/small' is not in the Hub cache; where there is a network, run 'hf"):
        find_base("plant/small", download=False)


def test_incomplete_download_is_refused(hub_cache: Path, small_base: Path) -> None:
    snapshot = cache_model(hub_cache, small_base, "plant/small")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"weight file model\.safetensors is missing.*hf download plant/small"):
        find_base("plant/small")


def test_folder_is_identified_by_its_content(tmp_path: Path, small_base: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_base, copy)
    before = find_base(str(copy)).revision
    assert before == find_base(str(small_base)).revision
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert find_base(str(copy)).revision != before


def test_folder_in_the_project_never_reads_as_a_hub_id(
    tmp_path: Path, small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.files.PROJECT_ROOT", tmp_path)
    shutil.copytree(small_base, tmp_path / "outputs" / "base")
    name = find_base("outputs/base").name
    assert name == "./outputs/base"
    assert find_base(name).name == name
    shutil.rmtree(tmp_path / "outputs")
    with pytest.raises(InputError, match="no such folder, and not a Hub id"):
        find_base(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plant/absent", "base model 'plant/absent' is not in the Hub cache and the Hub can't be reached"),
        ("./absent", "no such folder, and not a Hub id"),
        ("absent", "no such folder, and not a Hub id"),
        ("a/b/c", "no such folder, and not a Hub id"),
    ],
)
def test_base_that_cannot_be_had(hub_cache: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        find_base(name)


def test_other_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="is a 'llama'; this recipe trains 'qwen2_vl' only"):
        find_base(str(tmp_path))
