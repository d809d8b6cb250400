"""Features are computed once, kept whole or not at all, and never taken for another frame's, base's or size's."""

import io
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.errors import InputError
from recipes import modeling, vision_cache
from recipes.base_model import BaseModel, find_base
from recipes.collator import VisionCollator
from recipes.forward import frame_features
from recipes.vision_cache import VisionCache, fill

MAX_PIXELS = 100352
SIZES = [(64, 64), (64, 64), (90, 60)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(small_base: Path) -> BaseModel:
    return find_base(str(small_base))


@pytest.fixture(scope="module")
def collator(small_base: Path) -> VisionCollator:
    return VisionCollator(modeling.load_processor(small_base), MAX_PIXELS)


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    random = np.random.default_rng(0)
    encoded = []
    for width, height in SIZES:
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
        encoded.append(file.getvalue())
    return [*encoded, encoded[0]]


def cache_in(folder: Path, base: BaseModel, max_pixels: int = MAX_PIXELS) -> VisionCache:
    return VisionCache(folder, base, max_pixels=max_pixels, dtype=torch.float32)


def filled(cache: VisionCache, frames: list[bytes], collator: VisionCollator, base: BaseModel) -> int:
    return fill(cache, frames, collator, base, device=CPU, batch_size=2, num_workers=0)


def test_features_kept_are_the_tower_s(
    tmp_path: Path, frames: list[bytes], collator: VisionCollator, base: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = cache_in(tmp_path, base)
    assert filled(cache, frames, collator, base) == 3, "a frame that comes twice is computed once"
    assert "vision features of 3 frames: 0.00 GB in" in capsys.readouterr().err
    tower = modeling.load_tower(base, dtype=torch.float32, device=CPU)
    for encoded in frames:
        pixels = collator.pixels([{"image": {"bytes": encoded}}])
        features, grid = cache.read(encoded)
        torch.testing.assert_close(features, frame_features(tower, pixels["pixel_values"], pixels["image_grid_thw"]))
        assert torch.equal(grid, pixels["image_grid_thw"][0])


def test_what_is_kept_is_not_computed_again(
    tmp_path: Path, frames: list[bytes], collator: VisionCollator, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_in(tmp_path, base)
    filled(cache, frames, collator, base)
    cache.path(frames[1]).unlink()
    assert filled(cache, frames, collator, base) == 1
    monkeypatch.setattr(vision_cache, "load_tower", None)  # calling it would fail
    assert filled(cache, frames, collator, base) == 0


def test_folder_may_be_deleted(tmp_path: Path, frames: list[bytes], collator: VisionCollator, base: BaseModel) -> None:
    cache = cache_in(tmp_path / "vision", base)
    filled(cache, frames, collator, base)
    shutil.rmtree(tmp_path / "vision")
    with pytest.raises(InputError, match=r"is gone or damaged; remove it and go on with --resume"):
        cache.read(frames[0])
    assert filled(cache, frames, collator, base) == 3


def test_cut_off_run_leaves_whole_entries_alone(
    tmp_path: Path, frames: list[bytes], collator: VisionCollator, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_in(tmp_path, base)
    with monkeypatch.context() as patched:
        patched.setattr(vision_cache, "write_atomic", cut_off)
        with pytest.raises(OSError, match="cut off"):
            filled(cache, frames, collator, base)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert filled(cache, frames, collator, base) == 3


def cut_off(path: Path, content: bytes) -> None:
    raise OSError("cut off")


def test_damaged_entry_is_refused(
    tmp_path: Path, frames: list[bytes], collator: VisionCollator, base: BaseModel
) -> None:
    cache = cache_in(tmp_path, base)
    filled(cache, frames, collator, base)
    cache.path(frames[0]).write_bytes(b"cut off")
    with pytest.raises(InputError, match="gone or damaged"):
        cache.read(frames[0])


def test_key_holds_all_that_features_depend_on(tmp_path: Path, frames: list[bytes], base: BaseModel) -> None:
    other_revision = BaseModel(base.name, "0" * 40, base.folder)
    folders = {
        cache_in(tmp_path, base).folder,
        cache_in(tmp_path, base, 200704).folder,
        cache_in(tmp_path, other_revision).folder,
        VisionCache(tmp_path, base, max_pixels=MAX_PIXELS, dtype=torch.bfloat16).folder,
    }
    assert len(folders) == 4
    cache = cache_in(tmp_path, base)
    assert len({cache.path(encoded) for encoded in frames}) == 3


def test_full_disk_is_told_before_anything_is_computed(
    tmp_path: Path, frames: list[bytes], collator: VisionCollator, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(InputError, match=r"GB of vision features don't fit 0\.0 GB of disk; make room"):
        filled(cache_in(tmp_path, base), frames, collator, base)
    assert not list(tmp_path.rglob("*.safetensors"))
