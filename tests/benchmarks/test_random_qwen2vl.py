"""Random models for measuring: of the sizes that are published, and such as the recipe takes for a base."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import Qwen2VLConfig

from benchmarks.made import random_qwen2vl
from benchmarks.made.random_qwen2vl import shrink_to_2b, tensor_shapes
from recipes.machine.memory import predict_memory
from recipes.model.base import find_base
from tests.recipes.machine.test_memory import CONFIG_2B, settings_of

PARAMETERS = {"7b": 8_291_375_616, "2b": 2_208_985_600}


@pytest.mark.parametrize("size", PARAMETERS)
def test_sizes_are_the_published_ones(true_model_folder: Path, tmp_path: Path, size: str) -> None:
    config = tmp_path / "config.json"
    shutil.copyfile(true_model_folder / "config.json", config)
    if size == "2b":
        shrink_to_2b(config)
        settings = settings_of("6gb")
        assert predict_memory(settings, json.loads(config.read_text())) == predict_memory(settings, CONFIG_2B)
    shapes = tensor_shapes(tmp_path)
    assert sum(shape.numel() for shape in shapes.values()) == PARAMETERS[size]
    assert ("lm_head.weight" in shapes) == (size == "7b")


def test_random_2b_is_a_base(
    true_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With fewer and smaller layers; what is drawn, how it is tied and sharded stays."""
    like, out = tmp_path / "like", tmp_path / "2b"
    like.mkdir()
    vision = {"depth": 1, "embed_dim": 64, "num_heads": 2, "mlp_ratio": 2, "in_chans": 3, "spatial_patch_size": 14}
    small = {"num_hidden_layers": 1, "max_position_embeddings": 2048, "vision_config": vision}
    config = json.loads((true_model_folder / "config.json").read_text())
    (like / "config.json").write_text(json.dumps({**config, **small}))
    (like / "vocab.json").write_text("{}")
    shrunk = {"hidden_size": 192, "intermediate_size": 128, "vocab_size": 300}
    monkeypatch.setattr(random_qwen2vl, "SIZE_OF_THE_2B", {**random_qwen2vl.SIZE_OF_THE_2B, **shrunk})
    monkeypatch.setattr(random_qwen2vl, "SHARD_BYTES", 2**17)
    assert random_qwen2vl.main(["--like", str(like), "--size", "2b", "--out", str(out)]) == 0
    assert "parameters in" in capsys.readouterr().err
    assert find_base(str(out)).folder == out
    assert Qwen2VLConfig.from_pretrained(out).tie_word_embeddings
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    assert not any("lm_head" in name for name in index)
    name = "model.embed_tokens.weight"
    with safe_open(out / index[name], framework="pt") as file:
        table = file.get_tensor(name)
    assert (table.shape, table.dtype) == ((300, 192), torch.bfloat16)
    assert float(table.float().std()) == pytest.approx(0.02, rel=0.05)
