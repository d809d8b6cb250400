import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from data_prep.errors import InputError
from recipes.model.base import find_base
from recipes.model.base_files import check_packed, check_precision, read_config, weight_files
from tests.hub_stub import HubStub, Repo, hub_stub
from tests.made_bases import change_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cache_model(hub_cache: Path, base: Path, name: str) -> Path:
    """Lay a model out as a download leaves it."""
    repo = hub_cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    shutil.copytree(base, snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_cached_hub_model_is_found_offline_by_its_commit(hub_cache: Path, small_base: Path) -> None:
    snapshot = cache_model(hub_cache, small_base, "plant/small")
    base = find_base("plant/small")
    assert (base.name, base.revision, base.folder) == ("plant/small", COMMIT, snapshot)


def test_nothing_is_downloaded_where_that_is_not_wanted(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match="'plant/small' is not in the Hub cache; where there is a network, run 'hf"):
        find_base("plant/small", download=False)


def test_incomplete_download_is_refused(hub_cache: Path, small_base: Path) -> None:
    snapshot = cache_model(hub_cache, small_base, "plant/small")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"weight file model\.safetensors is missing.*hf download plant/small"):
        find_base("plant/small")


def test_folder_is_identified_by_its_content(tmp_path: Path, small_base: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_base, copy)
    before = find_base(str(copy)).revision
    assert before == find_base(str(small_base)).revision
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert find_base(str(copy)).revision != before


def test_folder_in_the_project_never_reads_as_a_hub_id(
    tmp_path: Path, small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.files.PROJECT_ROOT", tmp_path)
    shutil.copytree(small_base, tmp_path / "outputs" / "base")
    name = find_base("outputs/base").name
    assert name == "./outputs/base"
    assert find_base(name).name == name
    shutil.rmtree(tmp_path / "outputs")
    with pytest.raises(InputError, match="no such folder, and not a Hub id"):
        find_base(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plant/absent", "base model 'plant/absent' is not in the Hub cache and the Hub can't be reached"),
        ("./absent", "no such folder, and not a Hub id"),
        ("absent", "no such folder, and not a Hub id"),
        ("a/b/c", "no such folder, and not a Hub id"),
    ],
)
def test_base_that_cannot_be_had(hub_cache: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        find_base(name)


# The entry of config.json by which a base is refused, and what the one line must say.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "llama"}, "is a 'llama'; this recipe trains 'qwen2_vl' only, such as Qwen/Qwen2-VL-2B-Instruct"),
    ({"model_type": "qwen2_5_vl"}, "is a 'qwen2_5_vl'; this recipe trains 'qwen2_vl' only"),
    ({"model_type": "qwen3_vl"}, "is a 'qwen3_vl'; this recipe trains 'qwen2_vl' only"),
    (
        {"architectures": ["Qwen2VLModel"]},
        "is a Qwen2VLModel, not a Qwen2VLForConditionalGeneration; use Qwen/Qwen2-VL",
    ),
    (
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        "is quantized (awq), which isn't trained here; use one",
    ),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantized (gptq)"),
    ({"quantization_config": {"quant_method": "fp8"}}, "is quantized (fp8)"),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, "is quantized (compressed-tensors)"),
    ({"quantization_config": {"load_in_8bit": True, "quant_method": "bitsandbytes"}}, "(bitsandbytes' 8 bits)"),
    (
        {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_storage": "bfloat16"}},
        "keeps its 4-bit weights as bfloat16, and only uint8 is read here; use one in 16 bits, such as Qwen/Qwen2-VL",
    ),
    ({"num_hidden_layers": None, "text_config": {}}, "config.json is damaged; fetch it again"),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED, ids=lambda part: str(part)[:60])
def test_other_kind_of_base_is_refused(tmp_path: Path, small_base: Path, changed: dict[str, Any], message: str) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    change_config(tmp_path / "base", **changed)
    with pytest.raises(InputError, match=re.escape(message)):
        find_base(str(tmp_path / "base"))


@pytest.fixture
def hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStub]:
    """A Hub that this process may reach."""
    with hub_stub() as stub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", stub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield stub


def publish(hub: HubStub, base: Path, name: str = "plant/small") -> None:
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    hub.repos[name] = Repo(private=False, files=files, kind="models")


def asked_files(hub: HubStub) -> set[str]:
    return {request.split("/resolve/")[1].partition("/")[2] for request in hub.requests if "/resolve/" in request}


def test_base_is_downloaded_at_one_commit(hub: HubStub, small_base: Path) -> None:
    publish(hub, small_base)
    base = find_base("plant/small")
    assert (base.name, base.revision) == ("plant/small", hub.repos["plant/small"].sha)
    assert (base.folder / "model.safetensors").read_bytes() == (small_base / "model.safetensors").read_bytes()
    assert "README.md" not in asked_files(hub)


def test_cached_base_is_enough_where_the_hub_cannot_be_reached(
    hub_cache: Path, small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = cache_model(hub_cache, small_base, "plant/small")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    begin = time.monotonic()
    assert find_base("plant/small").folder == snapshot
    assert find_base("plant/small", COMMIT).folder == snapshot
    assert time.monotonic() - begin < 10, "asked for a commit's files, the Hub's library tries for 23 seconds"
    with pytest.raises(InputError, match="'plant/absent' is not in the Hub cache and the Hub can't be reached"):
        find_base("plant/absent")


@pytest.mark.parametrize(("changed", "message"), REFUSED, ids=lambda part: str(part)[:60])
def test_nothing_but_config_json_is_downloaded_of_another_kind(
    hub: HubStub, small_base: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    change_config(tmp_path / "base", **changed)
    publish(hub, tmp_path / "base")
    with pytest.raises(InputError, match=re.escape(message)):
        find_base("plant/small")
    assert asked_files(hub) == {"config.json"}


def test_download_that_was_cut_off_is_finished(hub: HubStub, hub_cache: Path, small_base: Path) -> None:
    publish(hub, small_base)
    snapshot = find_base("plant/small").folder
    for name in ("tokenizer.json", "model.safetensors"):
        (snapshot / name).unlink()
        assert (find_base("plant/small").folder / name).is_file()


def test_hub_without_that_model_or_revision_is_told(hub: HubStub, small_base: Path) -> None:
    with pytest.raises(InputError, match=r"base model 'plant/absent' at revision main: .*404"):
        find_base("plant/absent")
    publish(hub, small_base)
    del hub.repos["plant/small"].files["config.json"]
    with pytest.raises(InputError, match=r"'plant/small': config\.json is missing, so this is no model folder"):
        find_base("plant/small")


def test_index_of_a_base_in_4_bits_is_looked_at_before_its_weights(
    hub: HubStub, packed_base: Path, tmp_path: Path
) -> None:
    """Here the vision tower is in 4 bits, too."""
    folder = tmp_path / "base"
    shutil.copytree(packed_base, folder)
    names = [*tensors_of(packed_base), "visual.blocks.0.attn.qkv.weight.quant_state.bitsandbytes__nf4"]
    (folder / "model.safetensors").unlink()
    write_index(folder, dict.fromkeys(names, "model-1.safetensors"))
    publish(hub, folder)
    with pytest.raises(InputError, match=r"visual\.blocks\.0\.attn\.qkv is in 4 bits \(1 such in all\)"):
        find_base("plant/small")
    assert asked_files(hub) == {"config.json", "model.safetensors.index.json"}


def test_base_in_4_bits_is_found(hub: HubStub, packed_base: Path) -> None:
    assert find_base(str(packed_base)).folder == packed_base
    publish(hub, packed_base)
    assert find_base("plant/small").revision == hub.repos["plant/small"].sha


def test_weights_in_4_bits_must_be_the_language_model_s_and_all_of_them(packed_base: Path, small_base: Path) -> None:
    packed, plain = (read_config("x", folder) for folder in (packed_base, small_base))
    names = tensors_of(packed_base)
    check_packed("x", names, packed)
    check_packed("x", [name.replace("model.layers", "model.language_model.layers") for name in names], packed)
    check_packed("x", tensors_of(small_base), plain)
    wrong = [
        ([*names, "model.visual.blocks.1.mlp.fc1.weight.quant_state.bitsandbytes__fp4"], packed, "fc1 is in 4 bits"),
        ([*names, "lm_head.weight.quant_state.bitsandbytes__nf4"], packed, "lm_head is in 4 bits"),
        ([name for name in names if "layers.2.mlp.up_proj" not in name], packed, r"layers\.2\.mlp\.up_proj is not in"),
        (names, plain, r"layers\.0\.mlp\.down_proj is in 4 bits \(28 such in all\)"),
    ]
    for tensors, config, message in wrong:
        with pytest.raises(InputError, match=message):
            check_packed("x", tensors, config)


def test_base_in_4_bits_cannot_be_had_in_16(packed_base: Path, small_base: Path) -> None:
    with pytest.raises(InputError, match=r"'x' comes in 4 bits and can't be had in 16; set load_in_4bit to true"):
        check_precision("x", read_config("x", packed_base), load_in_4bit=False)
    check_precision("x", read_config("x", packed_base), load_in_4bit=True)
    check_precision("x", read_config("x", small_base), load_in_4bit=False)


def tensors_of(folder: Path) -> list[str]:
    with safe_open(folder / "model.safetensors", framework="np") as file:
        return list(file.keys())


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.fixture
def sharded(small_base: Path, tmp_path: Path) -> Path:
    """The small base in two files with an index, as larger ones come."""
    folder = tmp_path / "sharded"
    shutil.copytree(small_base, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    for number, part in enumerate((names[:50], names[50:]), start=1):
        save_file({name: weights[name] for name in part}, folder / f"model-{number}.safetensors")
    write_index(folder, {name: f"model-{1 if name in names[:50] else 2}.safetensors" for name in names})
    return folder


@pytest.mark.parametrize("kept_bytes", [0, 7, 500, -1])
def test_truncated_weight_file_is_told(sharded: Path, kept_bytes: int) -> None:
    find_base(str(sharded))
    file = sharded / "model-2.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(InputError, match=r"weight file model-2\.safetensors is truncated or damaged .*fetch it again"):
        find_base(str(sharded))


def test_truncated_download_is_to_be_forced(hub_cache: Path, small_base: Path) -> None:
    """The cache would link the same file again."""
    file = cache_model(hub_cache, small_base, "plant/small") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"again with 'hf download plant/small model\.safetensors --force-download'$"):
        find_base("plant/small", download=False)


def test_weight_file_of_another_model_is_told(sharded: Path) -> None:
    shutil.copy(sharded / "model-1.safetensors", sharded / "model-2.safetensors")
    with pytest.raises(
        InputError, match=r"model-2\.safetensors lacks .*, which model\.safetensors\.index\.json promises"
    ):
        find_base(str(sharded))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../b"}}'])
def test_damaged_index_is_told(sharded: Path, content: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match=r"index\.json: this index of the base model's weights is damaged; fetch it"):
        find_base(str(sharded))


def test_weights_that_do_not_fit_the_configuration_are_told(tmp_path: Path, small_base: Path, tied_base: Path) -> None:
    shutil.copytree(tied_base, tmp_path / "base")
    find_base(str(tmp_path / "base"))
    change_config(tmp_path / "base", tie_word_embeddings=False)
    with pytest.raises(InputError, match=r"lm_head\.weight is missing from its weight files"):
        find_base(str(tmp_path / "base"))
    shutil.copytree(small_base, tmp_path / "narrow")
    change_config(tmp_path / "narrow", vocab_size=700)
    with pytest.raises(InputError, match=r"embed_tokens\.weight has shape \[768, 256\] \(BF16\) where config\.json"):
        find_base(str(tmp_path / "narrow"))


def test_one_file_with_all_weights_comes_before_an_index_as_transformers_has_it(
    sharded: Path, small_base: Path
) -> None:
    assert weight_files(sharded) == ["model-1.safetensors", "model-2.safetensors"]
    shutil.copy(small_base / "model.safetensors", sharded)
    assert weight_files(sharded) == ["model.safetensors"]
