"""What transformers 5 writes of a base, told in the published layout; held against Qwen's and the small base's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from data_prep.errors import InputError
from recipes.model.base import find_base
from recipes.model.published_layout import published_config, published_files, published_name


@pytest.mark.parametrize(
    ("saved", "published"),
    [
        ("model.language_model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("model.language_model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("model.visual.blocks.0.attn.qkv.bias", "visual.blocks.0.attn.qkv.bias"),
        ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
        ("visual.merger.mlp.0.weight", "visual.merger.mlp.0.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_tensors_go_by_their_published_names(saved: str, published: str) -> None:
    assert published_name(saved) == published


def resaved(folder: Path, out: Path) -> Path:
    """Write a base's files, weights apart, as transformers 5 saves them."""
    Qwen2VLConfig.from_pretrained(folder, local_files_only=True).save_pretrained(out)
    Qwen2VLProcessor.from_pretrained(folder, local_files_only=True).save_pretrained(out)
    shutil.copy(folder / "generation_config.json", out)
    assert "text_config" in json.loads((out / "config.json").read_text())
    assert not (out / "preprocessor_config.json").exists()
    return out


def test_qwens_own_files_come_back(true_model_folder: Path, tmp_path: Path) -> None:
    own = json.loads((true_model_folder / "config.json").read_text())
    del own["transformers_version"]
    files = published_files("7B", resaved(true_model_folder, tmp_path / "saved"), "bfloat16")
    found = json.loads(files["config.json"])
    # What a newer version can't know: a token that nothing asks for, and a window that isn't used.
    assert found == {**own, "vision_token_id": found.get("vision_token_id", 151654), "sliding_window": None}
    assert json.loads(files["preprocessor_config.json"]) == json.loads(
        (true_model_folder / "preprocessor_config.json").read_text()
    )
    vocabulary = json.loads((true_model_folder / "vocab.json").read_text())
    assert json.loads(files["vocab.json"]) == vocabulary
    merges = (true_model_folder / "merges.txt").read_text().splitlines()[1:]
    assert files["merges.txt"].decode().splitlines()[1:] == [line for line in merges if line]


def test_published_files_stay_as_they_are(true_model_folder: Path) -> None:
    own = json.loads((true_model_folder / "config.json").read_text())
    del own["transformers_version"]
    assert published_config(own, "bfloat16") == own
    files = published_files("7B", true_model_folder, "bfloat16", max_pixels=376320)
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "generation_config.json", "chat_template.jinja"):
        assert files[name] == (true_model_folder / name).read_bytes(), name
    preprocessor = json.loads((true_model_folder / "preprocessor_config.json").read_text())
    assert json.loads(files["preprocessor_config.json"]) == {**preprocessor, "max_pixels": 376320}


def test_the_small_base_lies_in_it(small_base: Path, tmp_path: Path) -> None:
    files = published_files("small base", resaved(small_base, tmp_path / "saved"), "bfloat16")
    assert set(files) == {path.name for path in small_base.iterdir()} - {
        "model.safetensors",
        "README.md",
        "pretraining.json",
        "earlier_revisions.json",
    }
    for name in ("config.json", "preprocessor_config.json", "vocab.json"):
        assert json.loads(files[name]) == json.loads((small_base / name).read_text()), name


def test_a_quantized_base_s_settings_are_those_of_its_unpacked_weights(packed_base: Path) -> None:
    config = json.loads((packed_base / "config.json").read_text())
    assert "quantization_config" in config
    assert "quantization_config" not in published_config(config, "bfloat16")


def test_model_of_rewritten_files_is_the_same(small_base: Path, tmp_path: Path) -> None:
    saved = resaved(small_base, tmp_path / "saved")
    again = tmp_path / "again"
    again.mkdir()
    for name, content in published_files("small base", saved, "bfloat16").items():
        (again / name).write_bytes(content)
    for folder in (saved, again):
        shutil.copy(small_base / "model.safetensors", folder)
    ids = torch.tensor([[1, 743, 742, 723, 206]])
    with torch.no_grad():
        logits = [
            Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)(input_ids=ids).logits
            for folder in (small_base, saved, again)
        ]
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        (again / "tokenizer.json").unlink()
        published_files("again", again, "bfloat16")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer_config.json", None, r"tokenizer_config\.json is missing"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is damaged"),
        ("preprocessor_config.json", "{}", "its image processor's settings lack patch_size"),
        ("preprocessor_config.json", None, r"processor_config\.json is missing"),
        ("chat_template.jinja", None, "its chat template is missing"),
    ],
)
def test_what_is_missing_is_said(small_base: Path, tmp_path: Path, file: str, content: Any, said: str) -> None:
    folder = shutil.copytree(small_base, tmp_path / "base")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(InputError, match=said):
        published_files("plant", folder, "bfloat16")


def test_earlier_writings_of_the_same_weights_are_known(small_base: Path, tmp_path: Path) -> None:
    base = find_base(str(small_base))
    earlier = "a8381f64b290329b6d1c4bad0fc5ce012965c675"
    assert base.same_weights == (earlier,)
    assert base.is_at(earlier) and base.is_at(base.revision) and not base.is_at("0" * 40) and not base.is_at(None)
    folder = shutil.copytree(small_base, tmp_path / "base")
    assert find_base(str(folder)).same_weights == (earlier,)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "lm_head.weight": 2 * weights["lm_head.weight"]}, folder / "model.safetensors")
    assert find_base(str(folder)).same_weights == (), "other weights than the list was written for"
    (folder / "earlier_revisions.json").write_text('{"weights": "0123", "revisions": []}')
    with pytest.raises(InputError, match=r"earlier_revisions\.json: not a fingerprint and a list of revisions"):
        find_base(str(folder))
    (folder / "earlier_revisions.json").unlink()
    assert find_base(str(folder)).same_weights == ()


def test_other_rope_and_a_nested_tied_head_are_seen(tied_base: Path) -> None:
    config = json.loads((tied_base / "config.json").read_text())
    with pytest.raises(InputError, match=r"asks for rope of kind 'yarn'"):
        published_config({**config, "rope_scaling": {**config["rope_scaling"], "type": "yarn"}}, "bfloat16")
    nested = {**config, "tie_word_embeddings": False, "text_config": {**config, "tie_word_embeddings": True}}
    assert published_config(nested, "bfloat16")["tie_word_embeddings"] is True
