"""Weights read and written one by one: what safetensors itself writes is read, and reads what is written here."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from recipes.model.base import find_base
from recipes.model.weight_files import StoredWeights, file_size, write_weights

CPU = torch.device("cpu")
TENSORS = {
    "model.norm.weight": torch.arange(5.0),
    "lm_head.weight": torch.randn(3, 7, generator=torch.Generator().manual_seed(0)),
    "model.embed_tokens.weight": torch.full((2, 3, 4), -1.5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_file_is_one_of_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in TENSORS.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    write_weights(tmp_path / "ours", shapes, dtype, tensors.__getitem__)
    assert (tmp_path / "ours").stat().st_size == file_size(shapes, dtype)
    read = load_file(tmp_path / "ours")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor) and read[name].dtype == dtype, name
    with safe_open(tmp_path / "ours", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensor_of_another_shape_or_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lm_head\.weight is torch\.float32 of shape \(3, 7\), not .*\(3, 8\)"):
        write_weights(tmp_path / "file", {"lm_head.weight": (3, 8)}, torch.float32, TENSORS.__getitem__)
    with pytest.raises(ValueError, match=r"is torch\.float32 of shape \(3, 7\), not torch\.bfloat16"):
        write_weights(tmp_path / "file", {"lm_head.weight": (3, 7)}, torch.bfloat16, TENSORS.__getitem__)


def test_a_column_major_tensor_is_written_row_by_row(tmp_path: Path) -> None:
    turned = TENSORS["lm_head.weight"].t()
    write_weights(tmp_path / "file", {"lm_head.weight": (7, 3)}, torch.float32, lambda _name: turned)
    assert torch.equal(load_file(tmp_path / "file")["lm_head.weight"], turned)


def test_base_of_one_file_is_read(small_base: Path) -> None:
    stored = StoredWeights(find_base(str(small_base)))
    expected = load_file(small_base / "model.safetensors")
    assert set(stored.files["model.safetensors"]) == set(expected)
    for name, tensor in expected.items():
        assert stored.shape(name) == tuple(tensor.shape)
        found = stored.read(name, CPU)
        assert found.state is None and torch.equal(found.values, tensor)


def test_shards_keep_their_tensors(small_base: Path, tmp_path: Path) -> None:
    """Also those whose names are transformers 5's own."""
    for path in small_base.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = {
        name.replace("model.", "model.language_model.", 1).replace("visual.", "model.visual.", 1): tensor
        for name, tensor in load_file(small_base / "model.safetensors").items()
    }
    files = {f"model-0000{part + 1}-of-00003.safetensors": sorted(weights)[part::3] for part in range(3)}
    for file, names in files.items():
        save_file({name: weights[name] for name in names}, tmp_path / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    stored = StoredWeights(find_base(str(tmp_path)))
    assert {file: len(names) for file, names in stored.files.items()} == {
        file: len(names) for file, names in files.items()
    }
    name = "model.layers.2.mlp.down_proj.weight"
    assert any(name in names for names in stored.files.values())
    kept = weights["model.language_model.layers.2.mlp.down_proj.weight"]
    assert torch.equal(stored.read(name, CPU).values, kept)


def test_packed_weights_come_with_how_they_were_packed(small_base: Path, packed_base: Path) -> None:
    stored = StoredWeights(find_base(str(packed_base)))
    names = stored.files["model.safetensors"]
    assert set(names) == set(load_file(small_base / "model.safetensors"))
    name = "model.layers.1.self_attn.k_proj.weight"
    packed, state = stored.read(name, CPU)
    assert stored.shape(name) == (128, 256) and packed.dtype == torch.uint8
    assert state is not None and state.quant_type == "nf4" and state.nested and tuple(state.shape) == (128, 256)
    assert stored.read("model.norm.weight", CPU).state is None
