"""The device: its memory, its cores, its compiler."""

import json
from pathlib import Path

import pytest
import torch
from joblib import cpu_count

from data_prep.errors import InputError
from recipes.model.base import BaseModel
from recipes.model.compiling import compile_layers
from recipes.model.device import has_room_to_merge, use_all_cores
from tests.recipes.machine.test_memory import CONFIG as SIZES_OF_THE_7B
from tests.recipes.model.test_loading import load


def test_compiling_without_a_gpu_is_refused(small_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="compile_layers needs a GPU"):
        compile_layers(load(small_base))


def test_all_cores_are_used_whatever_the_launcher_left() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        use_all_cores()
        assert torch.get_num_threads() == cpu_count()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("free_gib", "share", "room"), [(30, 1.0, True), (20, 1.0, False), (30, 0.25, False)])
def test_merging_wants_room_for_all_of_the_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gib: int, share: float, room: bool
) -> None:
    """The 7B, 15.4 GiB in 16 bits, on a card of 80, of which `free_gib` are free and `share` may be allocated.

    It comes in 4 bits here, whose files take 5.5.
    """
    packed = {**SIZES_OF_THE_7B, "model_type": "qwen2_vl", "quantization_config": {"load_in_4bit": True}}
    (tmp_path / "config.json").write_text(json.dumps(packed))
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gib * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: share)
    base = BaseModel("./base", "0" * 40, tmp_path)
    assert has_room_to_merge(base, torch.device("cuda", 0)) is room
    assert not has_room_to_merge(base, torch.device("cpu"))
