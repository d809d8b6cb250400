"""Features are computed once, kept whole or not at all, and never taken for another frame's, base's or size's."""

import io
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as DatasetImage
from PIL import Image

from data_prep.errors import InputError
from recipes.batches import vision_cache
from recipes.batches.collator import VisionCollator
from recipes.batches.vision_cache import EncodedFrames, VisionCache, fill_cache
from recipes.model import loading
from recipes.model.base import BaseModel, find_base
from recipes.model.forward import image_features

MAX_PIXELS = 100352
SIZES = [(64, 64), (64, 64), (90, 60)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(small_base: Path) -> BaseModel:
    return find_base(str(small_base))


@pytest.fixture(scope="module")
def collator(small_base: Path) -> VisionCollator:
    return VisionCollator(loading.load_processor(small_base), MAX_PIXELS)


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


def encoded_frames(frames: list[bytes], content_hash: str = "0" * 64) -> EncodedFrames:
    """Return frames as a data set's, the first of them train's and the others validation's."""
    columns = Features({"image": DatasetImage(decode=False), "clip": Value("string")})
    splits = {
        split: Dataset.from_list([{"image": {"bytes": encoded, "path": None}, "clip": ""} for encoded in part], columns)
        for split, part in {"train": frames[:1], "validation": frames[1:]}.items()
    }
    source: Any = SimpleNamespace(content_hash=content_hash, rows=splits.get)
    return EncodedFrames(source, ("train", "validation"))


def filled(cache: VisionCache, frames: list[bytes], collator: VisionCollator, base: BaseModel) -> int:
    return fill_cache(cache, encoded_frames(frames), collator, base, device=CPU, batch_size=2, num_workers=0)


def test_features_kept_are_the_tower_s(
    tmp_path: Path, frames: list[bytes], collator: VisionCollator, base: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = cache_in(tmp_path, base)
    assert filled(cache, frames, collator, base) == 3, "a frame that comes twice is computed once"
    assert "vision features of 3 frames: 0.00 GB in" in capsys.readouterr().err
    tower = loading.load_tower(base, dtype=torch.float32, device=CPU)
    for encoded in frames:
        pixels = collator.pixels([{"image": {"bytes": encoded}}])
        features, grid = cache.read(encoded)
        torch.testing.assert_close(features, image_features(tower, pixels["pixel_values"], pixels["image_grid_thw"]))
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


def unreadable(frames: EncodedFrames) -> Iterator[bytes]:
    raise AssertionError("a frame was read")


def test_later_starts_read_no_frame(
    tmp_path: Path, frames: list[bytes], base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a million would take minutes. What a data set's frames are is told by its content hash."""
    cache = cache_in(tmp_path, base)
    assert cache.missing(encoded_frames(frames)) == [0, 1, 2]
    for encoded in frames[:2]:
        cache.write(encoded, torch.zeros(1, 4), torch.ones(3))
    other = encoded_frames([frames[2], frames[0]], "1" * 64)
    assert cache.missing(other) == [0], "another data set's frames are others"
    monkeypatch.setattr(EncodedFrames, "__iter__", unreadable)
    monkeypatch.setattr(EncodedFrames, "__getitem__", unreadable)
    assert cache.missing(encoded_frames(frames)) == [2]
    assert cache_in(tmp_path, base, 200704).missing(encoded_frames(frames)) == [0, 1, 2]
    cache.path(frames[0]).unlink()
    assert cache.missing(other) == [0, 1]


@pytest.mark.parametrize("damage", [b"", b"cut off", b"\0" * 160], ids=["emptied", "cut off", "overwritten"])
def test_damaged_list_of_frames_is_made_anew(
    tmp_path: Path, frames: list[bytes], base: BaseModel, damage: bytes
) -> None:
    """Believed, it would hide that frames are missing; no start would mend it."""
    cache = cache_in(tmp_path, base)
    cache.missing(encoded_frames(frames))
    (kept,) = (path for path in tmp_path.iterdir() if path.is_file())
    whole = kept.read_bytes()
    assert len(whole) == 160
    kept.write_bytes(damage)
    assert cache.missing(encoded_frames(frames)) == [0, 1, 2]
    assert kept.read_bytes() == whole


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


def test_key_holds_all_that_features_depend_on(
    tmp_path: Path, frames: list[bytes], base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_revision = BaseModel(base.name, "0" * 40, base.folder)
    folders = {
        cache_in(tmp_path, base).folder,
        cache_in(tmp_path, base, 200704).folder,
        cache_in(tmp_path, other_revision).folder,
        VisionCache(tmp_path, base, max_pixels=MAX_PIXELS, dtype=torch.bfloat16).folder,
        VisionCache(tmp_path, base, max_pixels=MAX_PIXELS, max_side=640, dtype=torch.float32).folder,
    }
    for ours in ("PIXELS_VERSION", "FEATURES_VERSION", "_LAYOUT"):
        with monkeypatch.context() as patched:
            patched.setattr(vision_cache, ours, 99)
            folders.add(cache_in(tmp_path, base).folder)
    installed = vision_cache.version
    for package in ("pillow", "qwen-vl-utils", "torch", "torchvision", "transformers"):
        with monkeypatch.context() as patched:
            patched.setattr(vision_cache, "version", lambda name: "99" if name == package else installed(name))  # noqa: B023
            folders.add(cache_in(tmp_path, base).folder)
    assert len(folders) == 5 + 3 + 5
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
