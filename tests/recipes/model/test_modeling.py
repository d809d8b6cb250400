import json
import re
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from joblib import cpu_count
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLForConditionalGeneration, modeling_utils

from data_prep.errors import InputError
from recipes.adapter.lora import load_adapter, lora_config
from recipes.layers.sizes import LLM_LINEARS
from recipes.model import loading
from recipes.model.base import BaseModel, find_base
from recipes.model.device import compile_layers, has_room_to_merge, use_all_cores
from recipes.model.quantized import compute_exactly_on_cpu, quantization_config, quantized_modules, unpack_quantized
from tests.made_bases import write_packed
from tests.recipes.machine.test_memory import CONFIG as SIZES_OF_THE_7B

CPU = torch.device("cpu")
LORA: dict[str, Any] = {"r": 4, "alpha": 8, "dropout": 0.0, "use_rslora": False}


def load(small_base: Path, *, dtype: torch.dtype = torch.float32, load_in_4bit: bool = True) -> Any:
    return loading.load_base(find_base(str(small_base)), dtype=dtype, load_in_4bit=load_in_4bit, device=CPU)


@pytest.fixture(scope="module")
def saved_adapter(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = lora_config(target_modules=LLM_LINEARS, **LORA)
    get_peft_model(load(small_base), config).save_pretrained(folder)
    return folder


def test_language_model_is_in_4_bits_and_the_vision_tower_in_bf16(small_base: Path) -> None:
    model = load(small_base, dtype=torch.bfloat16)
    quantized = quantized_modules(model)
    assert len(quantized) == 7 * 4
    assert all(name.startswith("model.language_model.layers.") for name in quantized)
    assert {weight.dtype for weight in model.model.visual.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight.dtype == torch.bfloat16
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    assert (weight.quant_state.quant_type, weight.quant_state.nested, weight.dtype) == ("nf4", True, torch.uint8)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kept", [["visual", "lm_head"], ["model.visual"], ["model.visual", "lm_head", "q_proj"]])
def test_wrong_skip_list_is_noticed(small_base: Path, monkeypatch: pytest.MonkeyPatch, kept: list[str]) -> None:
    monkeypatch.setattr("recipes.model.quantized.KEPT_IN_16_BITS", kept)
    with pytest.raises(RuntimeError, match="quantised other modules than expected"):
        load(small_base)


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


def load_packed(folder: Path, dtype: torch.dtype = torch.float32, **how: Any) -> Any:
    return loading.load_base(find_base(str(folder)), dtype=dtype, load_in_4bit=True, device=CPU, **how)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_base_that_comes_in_4_bits_is_the_base_packed_here(
    small_base: Path, packed_base: Path, dtype: torch.dtype
) -> None:
    ours, theirs = load(small_base, dtype=torch.float32), load_packed(packed_base, dtype)
    for name, module in quantized_modules(theirs).items():
        own = ours.get_submodule(name)
        assert torch.equal(module.weight, own.weight)
        assert module.weight.quant_state.dtype == module.compute_dtype == dtype
        assert own.weight.quant_state.dtype == torch.float32
    assert {weight.dtype for weight in theirs.model.visual.parameters()} == {dtype}
    assert theirs.config.tie_word_embeddings is False and theirs.lm_head.weight.dtype == dtype
    if dtype == torch.float32:
        assert torch.equal(logits_of(theirs), logits_of(ours))
    unpack_quantized(theirs, torch.float32)
    unpack_quantized(ours, torch.float32)
    layer = "model.language_model.layers.3.mlp.down_proj.weight"
    assert torch.equal(theirs.get_parameter(layer), ours.get_parameter(layer))


def test_base_that_comes_in_4_bits_gives_its_tower_alone(packed_base: Path, small_base: Path) -> None:
    towers = [
        loading.load_tower(find_base(str(folder)), dtype=torch.float32, device=CPU)
        for folder in (packed_base, small_base)
    ]
    own = towers[1].state_dict()
    assert all(torch.equal(weight, own[name]) for name, weight in towers[0].state_dict().items())


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_packing_of_another_kind_computes_as_plain_modules_do(
    small_base: Path, tmp_path: Path, quant_type: str
) -> None:
    """Single quantisation, names as newer versions save them, the dtype it was made from neither of ours, two files."""
    folder = tmp_path / "packed"
    save = {"save_original_format": False, "max_shard_size": "6MB"}
    write_packed(small_base, folder, bnb_4bit_quant_type=quant_type, bnb_4bit_compute_dtype=torch.float16, save=save)
    model = load_packed(folder)
    name, module = next(iter(quantized_modules(model).items()))
    assert (module.weight.quant_state.quant_type, module.weight.quant_state.nested) == (quant_type, False)
    x = torch.randn(5, module.in_features)
    weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
    expected = torch.nn.functional.linear(x, weight, module.bias)
    torch.testing.assert_close(module(x), expected)
    unpack_quantized(model, torch.float32)
    torch.testing.assert_close(model.get_submodule(name)(x), expected)


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


def test_unpacked_base_computes_the_same(small_base: Path) -> None:
    model = load(small_base)
    layer = model.model.language_model.layers[1].mlp.up_proj
    x = torch.randn(5, layer.in_features)
    expected = layer(x)
    unpack_quantized(model, torch.float32)
    assert not quantized_modules(model)
    torch.testing.assert_close(model.model.language_model.layers[1].mlp.up_proj(x), expected, rtol=1e-5, atol=1e-6)


def test_compiling_without_a_gpu_is_refused(small_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="compile_layers needs a GPU"):
        compile_layers(load(small_base))


def test_adapter_on_the_vision_tower_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("lora_target_modules: qkv not among q_proj, k_proj")):
        lora_config(target_modules=["q_proj", "qkv"], **LORA)


def test_adapter_is_loaded_in_fp32_and_frozen(small_base: Path, saved_adapter: Path) -> None:
    model = load_adapter(load(small_base, dtype=torch.bfloat16), saved_adapter)
    adapter = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    assert len(adapter) == 2 * 7 * 4
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    assert not any(weight.requires_grad for weight in adapter.values())
    assert not model.training


def test_loading_asks_no_hub_about_the_base(
    small_base: Path, saved_adapter: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    shutil.copytree(saved_adapter, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "plant/absent"}))
    load_adapter(load(small_base), tmp_path / "adapter")
    assert not [warning for warning in recwarn if "plant/absent" in str(warning.message)]


def test_damaged_adapter_is_refused(small_base: Path, saved_adapter: Path, tmp_path: Path) -> None:
    weights = load_file(saved_adapter / "adapter_model.safetensors")
    missing = min(weights)
    del weights[missing]
    (tmp_path / "adapter_config.json").write_bytes((saved_adapter / "adapter_config.json").read_bytes())
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(load(small_base), tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"1 weights are missing or unknown, among them {re.escape(missing)}"):
        load_adapter(load(small_base), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="damaged"):
        load_adapter(load(small_base), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("merge", [False, True])
def test_adapter_of_which_one_value_is_no_number_is_refused(
    small_base: Path, saved_adapter: Path, tmp_path: Path, value: float, merge: bool
) -> None:
    shutil.copytree(saved_adapter, tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = next(name for name in weights if "layers.2.mlp.up_proj.lora_B" in name)
    weights[name][3, 1] = value
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"layers\.2\.mlp\.up_proj\.lora_B.* holds values that are no numbers"):
        load_adapter(load(small_base, load_in_4bit=not merge), tmp_path / "adapter", merge=merge)


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
