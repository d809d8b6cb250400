"""Processors and bases are loaded whole, their parts where they are wanted."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLForConditionalGeneration, modeling_utils

from data_prep.errors import InputError
from recipes.model import loading
from recipes.model.base import find_base
from recipes.model.quantized import compute_exactly_on_cpu, quantization_config
from tests.made_bases import write_packed

CPU = torch.device("cpu")


def load(small_base: Path, *, dtype: torch.dtype = torch.float32, load_in_4bit: bool = True) -> Any:
    return loading.load_base(find_base(str(small_base)), dtype=dtype, load_in_4bit=load_in_4bit, device=CPU)


def test_parts_lie_where_the_placement_says() -> None:
    card = torch.device("cuda", 0)
    assert loading.Placement().device_map(card) == {"": card}
    assert loading.Placement(True, True, True).device_map(CPU) == {"": CPU}
    assert loading.Placement(embedding_on_host=True, without_vision=True).device_map(card) == {
        "model.language_model.layers": card,
        "model.language_model.norm": card,
        "model.language_model.rotary_emb": card,
        "model.language_model.embed_tokens": "cpu",
        "lm_head": card,
        "model.visual": "cpu",
    }


@pytest.mark.parametrize(("embedding", "head"), [(True, False), (False, True), (True, True), (False, False)])
def test_tied_head_is_loaded_where_the_embedding_is(embedding: bool, head: bool) -> None:
    card = torch.device("cuda", 0)
    placed = loading.Placement(embedding, head, without_vision=True).device_map(card, tied=True)
    expected = "cpu" if embedding or head else card
    assert placed["model.language_model.embed_tokens"] == placed["lm_head"] == expected


IDS = torch.tensor([[3, 9, 300, 7, 21]])


def logits_of(model: Any) -> torch.Tensor:
    """The language model's logits of IDS, its parts called as forward.py calls them."""
    with torch.no_grad():
        hidden = model.model.language_model(inputs_embeds=model.get_input_embeddings()(IDS)).last_hidden_state
        return model.lm_head(hidden)


PLACES = [loading.Placement(e, h, v) for e in (True, False) for h in (True, False) for v in (True, False)]
SOME_PLACES = [loading.Placement(True, True, True), loading.Placement(False, True, False)]


@pytest.mark.parametrize(
    ("tied", "load_in_4bit", "placements"),
    [(False, False, PLACES), (True, False, PLACES), (True, True, SOME_PLACES)],
    ids=["own head", "tied head", "tied head, 4 bits"],
)
def test_parts_compute_the_same_wherever_they_lie(
    small_base: Path,
    tied_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    tied: bool,
    load_in_4bit: bool,
    placements: list[loading.Placement],
) -> None:
    """With a CPU in the place of the card: accelerate takes it for another device than the host's "cpu"."""
    dispatch = Mock(wraps=modeling_utils.accelerate_dispatch)
    monkeypatch.setattr(modeling_utils, "accelerate_dispatch", dispatch)
    monkeypatch.setattr(
        loading.Placement,
        "device_map",
        lambda self, device, *, tied: self.by_part(device, tied=tied) if self != loading.Placement() else {"": device},
    )
    folder = tied_base if tied else small_base
    plain = Qwen2VLForConditionalGeneration.from_pretrained(
        folder,
        dtype=torch.float32,
        device_map={"": CPU},
        quantization_config=quantization_config(torch.float32) if load_in_4bit else None,
    )
    compute_exactly_on_cpu(plain)
    with torch.no_grad():
        expected = plain(input_ids=IDS).logits
    for placement in placements:
        model = loading.load_base(
            find_base(str(folder)), dtype=torch.float32, load_in_4bit=load_in_4bit, device=CPU, placement=placement
        )
        torch.testing.assert_close(logits_of(model), expected, rtol=1e-5, atol=1e-5)
        assert not any(hasattr(module, "_hf_hook") for module in model.modules())
    assert dispatch.call_count == len(placements) - (loading.Placement() in placements)


def test_base_that_comes_in_4_bits_gives_its_tower_alone(packed_base: Path, small_base: Path) -> None:
    towers = [
        loading.load_tower(find_base(str(folder)), dtype=torch.float32, device=CPU)
        for folder in (packed_base, small_base)
    ]
    own = towers[1].state_dict()
    assert all(torch.equal(weight, own[name]) for name, weight in towers[0].state_dict().items())


def test_packed_vision_tower_is_refused(small_base: Path, tmp_path: Path) -> None:
    write_packed(small_base, tmp_path / "packed", kept=["lm_head"], bnb_4bit_quant_type="nf4")
    with pytest.raises(InputError, match=r"visual\.blocks\.0\.attn\.proj is in 4 bits .* use one in 16 bits, such as"):
        find_base(str(tmp_path / "packed"))


def test_base_in_4_bits_is_refused_where_16_are_wanted(packed_base: Path) -> None:
    with pytest.raises(InputError, match="comes in 4 bits and can't be had in 16; set load_in_4bit to true"):
        load(packed_base, load_in_4bit=False)


def test_weights_that_a_base_lacks_are_told(small_base: Path, tmp_path: Path) -> None:
    """transformers would leave them at random values."""
    shutil.copytree(small_base, tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    del weights["visual.merger.mlp.0.bias"]
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights, such as model\.visual\.merger\.mlp\.0\.bias; fetch"):
        load(tmp_path / "base")


def test_base_without_vision_has_no_tower_and_the_tower_alone_is_the_base_s(small_base: Path) -> None:
    base = find_base(str(small_base))
    whole = load(small_base)
    without = loading.load_base(
        base, dtype=torch.float32, load_in_4bit=True, device=CPU, placement=loading.Placement(without_vision=True)
    )
    assert not any("visual" in name for name, _ in without.named_parameters())
    tower = loading.load_tower(base, dtype=torch.float32, device=CPU)
    expected = whole.model.visual.state_dict()
    assert tower.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in tower.state_dict().items())


def test_code_that_a_processor_s_files_name_is_never_run(small_base: Path, tmp_path: Path) -> None:
    """transformers would ask on stdin whether to run it, and take the first path of a stream that is `y` for a yes."""
    folder = tmp_path / "adapter"
    shutil.copytree(small_base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "mine.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    expected = loading.load_processor(folder)
    for name in ("processor_config.json", "tokenizer_config.json", "preprocessor_config.json", "config.json"):
        settings = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        parts = ("Processor", "Tokenizer", "ImageProcessor", "VideoProcessor", "Config")
        settings["auto_map"] = {f"Auto{part}": "mine.Mine" for part in parts} | {
            "AutoTokenizer": ["mine.Mine", "mine.Mine"]
        }
        if "image_processor" in settings:
            settings["image_processor"]["auto_map"] = settings["auto_map"]
        (folder / name).write_text(json.dumps(settings))
    try:
        found = loading.load_processor(folder)
    except InputError as refused:
        assert "which is never run" in str(refused)
    else:
        assert [type(found), type(found.tokenizer), type(found.image_processor)] == [
            type(expected),
            type(expected.tokenizer),
            type(expected.image_processor),
        ]
    assert not (folder / "ran").exists()


def test_processor_that_is_damaged_is_said_in_a_line(small_base: Path, tmp_path: Path) -> None:
    shutil.copytree(small_base, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "base" / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(InputError, match="its tokenizer or processor files are missing or damaged"):
        loading.load_processor(tmp_path / "base")
