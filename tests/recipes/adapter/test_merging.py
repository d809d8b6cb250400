"""An adapter in its base's weights: those that training saw, with what LoRA adds, rounded once."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.made.random_adapter import write_random_adapter
from data_prep.errors import InputError
from recipes.adapter.folder import Adapter, find_adapter
from recipes.adapter.merging import MergedWeights, read_updates
from recipes.adapter.safety_record import read_record
from recipes.layers.sizes import LLM_LINEARS
from recipes.model.base import find_base
from recipes.model.loading import load_base
from recipes.model.quantized import unpack_quantized

CPU = torch.device("cpu")
UP = "model.layers.1.mlp.up_proj.weight"


def random_adapter(base: Path, folder: Path, **record: Any) -> Adapter:
    write_random_adapter(folder, base, max_pixels=100352)
    replace(read_record(folder), **{"dtype": "float32", **record}).write(folder)
    return find_adapter(folder)


def change(adapter: Adapter, **config: Any) -> None:
    file = adapter.folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))


@pytest.mark.parametrize("base", ["small_base", "tied_base", "packed_base"])
def test_base_is_as_training_saw_it(request: pytest.FixtureRequest, tmp_path: Path, base: str) -> None:
    """Where nothing is added, its values are those that a base loaded in 4 bits unpacks to."""
    adapter = random_adapter(request.getfixturevalue(base), tmp_path / "run")
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    nothing = {name: weight * 0 if "lora_B" in name else weight for name, weight in weights.items()}
    save_file(nothing, tmp_path / "run" / "adapter_model.safetensors")
    model = load_base(adapter.base, dtype=torch.float32, load_in_4bit=True, device=CPU)
    unpack_quantized(model, torch.float32)
    merged = MergedWeights(adapter, CPU)
    (names,) = merged.shapes.values()
    for name in names:
        inner = name.replace("model.", "language_model.", 1) if name.startswith("model.") else name
        expected = model.lm_head.weight if name == "lm_head.weight" else model.model.get_parameter(inner)
        assert torch.equal(merged.tensor(name), expected), name
    assert ("lm_head.weight" in names) == (base != "tied_base")


def test_original_weights_are_the_base_s_own(small_base: Path, tmp_path: Path) -> None:
    adapter = random_adapter(small_base, tmp_path / "run")
    own = load_file(small_base / "model.safetensors")
    stored = load_file(tmp_path / "run" / "adapter_model.safetensors")
    a, b = (
        stored[f"base_model.model.model.language_model.layers.1.mlp.up_proj.lora_{part}.weight"].double()
        for part in "AB"
    )
    merged = MergedWeights(adapter, CPU, original=True)
    expected = own[UP].double() + 2.0 * b @ a  # alpha 32 over r 16
    assert torch.allclose(merged.tensor(UP).double(), expected, atol=1e-7, rtol=1e-6)
    assert torch.equal(merged.tensor("lm_head.weight"), own["lm_head.weight"].float())
    as_trained = MergedWeights(adapter, CPU).tensor(UP).double()
    assert 0.001 < (as_trained - expected).abs().max() < 0.1


def test_sum_is_rounded_once(small_base: Path, tmp_path: Path) -> None:
    """In bf16 no weight is further from the exact sum than half a step of bf16."""
    adapter = random_adapter(small_base, tmp_path / "run", dtype="bfloat16", load_in_4bit=False)
    merged = MergedWeights(adapter, CPU).tensor(UP)
    assert merged.dtype == torch.bfloat16
    update = read_updates(adapter)[UP]
    exact = load_file(small_base / "model.safetensors")[UP].double() + 2.0 * update.b.double() @ update.a.double()
    half_a_step = 2.0 ** (torch.floor(torch.log2(exact.abs())) - 8)
    assert ((merged.double() - exact).abs() <= half_a_step * (1 + 1e-3)).all()


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 2.0), (True, 32 / math.sqrt(16))])
def test_scaling_is_peft_s(small_base: Path, tmp_path: Path, rslora: bool, scaling: float) -> None:
    adapter = random_adapter(small_base, tmp_path / "run")
    change(adapter, use_rslora=rslora)
    updates = read_updates(adapter)
    assert {update.scaling for update in updates.values()} == {scaling}
    assert len(updates) == 4 * len(LLM_LINEARS)


def test_linears_without_an_adapter_are_only_unpacked(small_base: Path, tmp_path: Path) -> None:
    adapter = random_adapter(small_base, tmp_path / "run")
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if ".q_proj." in name},
        tmp_path / "run" / "adapter_model.safetensors",
    )
    with pytest.raises(InputError, match=r"48 weights are missing or unknown, among them model\.layers\.0\.mlp"):
        read_updates(adapter)
    change(adapter, target_modules=["q_proj"])
    assert set(read_updates(adapter)) == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(4)}
    model = load_base(find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=CPU)
    unpack_quantized(model, torch.float32)
    expected = model.model.language_model.layers[1].mlp.up_proj.weight
    assert torch.equal(MergedWeights(adapter, CPU).tensor(UP), expected)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda weight: weight[:, :-1], r"has other shapes than its base"),
        (lambda weight: weight / 0, r"holds values that are no numbers"),
    ],
)
def test_damaged_adapter_is_refused(small_base: Path, tmp_path: Path, damage: Any, said: str) -> None:
    adapter = random_adapter(small_base, tmp_path / "run")
    file = tmp_path / "run" / "adapter_model.safetensors"
    weights = load_file(file)
    name = "base_model.model.model.language_model.layers.3.self_attn.o_proj.lora_A.weight"
    save_file({**weights, name: damage(weights[name]).contiguous()}, file)
    with pytest.raises(InputError, match=said):
        read_updates(adapter)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is damaged"):
        read_updates(adapter)
