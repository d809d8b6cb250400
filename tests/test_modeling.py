import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from joblib import cpu_count
from peft import get_peft_model
from safetensors.torch import load_file, save_file

from data_prep.errors import InputError
from recipes import modeling
from recipes.base_model import BaseModel, find_base

CPU = torch.device("cpu")
LORA: dict[str, Any] = {"r": 4, "alpha": 8, "dropout": 0.0, "use_rslora": False}


def load(small_base: Path, *, dtype: torch.dtype = torch.float32, load_in_4bit: bool = True) -> Any:
    return modeling.load_base(find_base(str(small_base)), dtype=dtype, load_in_4bit=load_in_4bit, device=CPU)


@pytest.fixture(scope="module")
def saved_adapter(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = modeling.lora_config(target_modules=modeling.LLM_LINEARS, **LORA)
    get_peft_model(load(small_base), config).save_pretrained(folder)
    return folder


def test_language_model_is_in_4_bits_and_the_vision_tower_in_bf16(small_base: Path) -> None:
    model = load(small_base, dtype=torch.bfloat16)
    quantized = modeling.quantized_modules(model)
    assert len(quantized) == 7 * 4
    assert all(name.startswith("model.language_model.layers.") for name in quantized)
    assert {weight.dtype for weight in model.model.visual.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight.dtype == torch.bfloat16
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    assert (weight.quant_state.quant_type, weight.quant_state.nested, weight.dtype) == ("nf4", True, torch.uint8)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kept", [["visual", "lm_head"], ["model.visual"], ["model.visual", "lm_head", "q_proj"]])
def test_wrong_skip_list_is_noticed(small_base: Path, monkeypatch: pytest.MonkeyPatch, kept: list[str]) -> None:
    monkeypatch.setattr(modeling, "KEPT_IN_16_BITS", kept)
    with pytest.raises(RuntimeError, match="quantised other modules than expected"):
        load(small_base)


def test_parts_lie_where_the_placement_says() -> None:
    card = torch.device("cuda", 0)
    assert modeling.Placement().device_map(card) == {"": card}
    assert modeling.Placement(True, True, True).device_map(CPU) == {"": CPU}
    assert modeling.Placement(embedding_on_host=True, without_vision=True).device_map(card) == {
        "model.language_model.layers": card,
        "model.language_model.norm": card,
        "model.language_model.rotary_emb": card,
        "model.language_model.embed_tokens": "cpu",
        "lm_head": card,
        "model.visual": "cpu",
    }


def test_base_without_vision_has_no_tower_and_the_tower_alone_is_the_base_s(small_base: Path) -> None:
    base = find_base(str(small_base))
    whole = load(small_base)
    without = modeling.load_base(
        base, dtype=torch.float32, load_in_4bit=True, device=CPU, placement=modeling.Placement(without_vision=True)
    )
    assert not any("visual" in name for name, _ in without.named_parameters())
    tower = modeling.load_tower(base, dtype=torch.float32, device=CPU)
    expected = whole.model.visual.state_dict()
    assert tower.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in tower.state_dict().items())


def test_unpacked_base_computes_the_same(small_base: Path) -> None:
    model = load(small_base)
    layer = model.model.language_model.layers[1].mlp.up_proj
    x = torch.randn(5, layer.in_features)
    expected = layer(x)
    modeling.unpack_quantized(model, torch.float32)
    assert not modeling.quantized_modules(model)
    torch.testing.assert_close(model.model.language_model.layers[1].mlp.up_proj(x), expected, rtol=1e-5, atol=1e-6)


def test_compiling_without_a_gpu_is_refused(small_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="compile_layers needs a GPU"):
        modeling.compile_layers(load(small_base))


def test_adapter_on_the_vision_tower_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("lora_target_modules: qkv not among q_proj, k_proj")):
        modeling.lora_config(target_modules=["q_proj", "qkv"], **LORA)


def test_adapter_is_loaded_in_fp32_and_frozen(small_base: Path, saved_adapter: Path) -> None:
    model = modeling.load_adapter(load(small_base, dtype=torch.bfloat16), saved_adapter)
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
    modeling.load_adapter(load(small_base), tmp_path / "adapter")
    assert not [warning for warning in recwarn if "plant/absent" in str(warning.message)]


def test_damaged_adapter_is_refused(small_base: Path, saved_adapter: Path, tmp_path: Path) -> None:
    weights = load_file(saved_adapter / "adapter_model.safetensors")
    missing = min(weights)
    del weights[missing]
    (tmp_path / "adapter_config.json").write_bytes((saved_adapter / "adapter_config.json").read_bytes())
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        modeling.load_adapter(load(small_base), tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"1 weights are missing or unknown, among them {re.escape(missing)}"):
        modeling.load_adapter(load(small_base), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="damaged"):
        modeling.load_adapter(load(small_base), tmp_path)


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
        modeling.load_adapter(load(small_base, load_in_4bit=not merge), tmp_path / "adapter", merge=merge)


def test_code_that_a_processor_s_files_name_is_never_run(small_base: Path, tmp_path: Path) -> None:
    """transformers would ask on stdin whether to run it, and take the first path of a stream that is `y` for a yes."""
    folder = tmp_path / "adapter"
    shutil.copytree(small_base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "mine.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    expected = modeling.load_processor(folder)
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
        found = modeling.load_processor(folder)
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
        modeling.load_processor(tmp_path / "base")


def test_all_cores_are_used_whatever_the_launcher_left() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        modeling.use_all_cores()
        assert torch.get_num_threads() == cpu_count()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("free_gib", "share", "room"), [(30, 1.0, True), (20, 1.0, False), (30, 0.25, False)])
def test_merging_wants_room_for_all_of_the_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gib: int, share: float, room: bool
) -> None:
    """A base of 16 GiB on a card of 80, of which `free_gib` are free and `share` may be allocated."""
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(16 * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gib * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: share)
    base = BaseModel("./base", "0" * 40, tmp_path)
    assert modeling.has_room_to_merge(base, torch.device("cuda", 0)) is room
    assert not modeling.has_room_to_merge(base, torch.device("cpu"))
