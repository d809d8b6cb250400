"""An export: whole or absent, in the published layout, answering as the adapter it was made of."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from data_prep.media.images import read_image
from recipes import export, infer
from recipes.adapter import exporting
from recipes.adapter.exporting import Export
from recipes.adapter.folder import find_adapter
from recipes.adapter.label_tokens import label_tokens
from recipes.adapter.model_card import is_own_card
from recipes.adapter.safety_record import read_record
from recipes.answering.adapted_model import load_for_batches
from recipes.layers.sizes import LLM_LINEARS
from recipes.model.loading import load_processor
from recipes.training.run_folder import RunFolder
from tests.made_bases import change_config
from tests.recipes.adapter.test_merging import random_adapter

CPU = torch.device("cpu")
FRAME = PROJECT_ROOT / "tests" / "data" / "frame.png"


@pytest.fixture(scope="module")
def run(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "plant"
    random_adapter(small_base, folder, threshold=0.25)
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "plant"
    assert export.main(["--adapter", str(run), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("base", ["small_base", "tied_base", "packed_base"])
def test_it_answers_as_its_adapter(request: pytest.FixtureRequest, tmp_path: Path, base: str) -> None:
    adapter = random_adapter(request.getfixturevalue(base), tmp_path / "run")
    Export(adapter, tmp_path / "out", CPU).write()
    images = [read_image(FRAME), read_image(FRAME).resize((500, 300)), read_image(FRAME).rotate(90)]
    of_adapter, of_export = (
        load_for_batches(find_adapter(folder)).p_unsafe(images) for folder in (adapter.folder, tmp_path / "out")
    )
    assert of_export == pytest.approx(of_adapter, abs=1e-5)
    assert len({round(p, 4) for p in of_export}) == 3


def test_layout_is_the_published_one(exported: Path, small_base: Path) -> None:
    added = {"safety.json", "README.md"}
    kept = {path.name for path in small_base.iterdir()} - {"README.md", "pretraining.json", "earlier_revisions.json"}
    assert {path.name for path in exported.iterdir()} == kept | added
    own, found = (load_file(folder / "model.safetensors") for folder in (small_base, exported))
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in own.items()
    }
    config = json.loads((exported / "config.json").read_text())
    assert config == {**json.loads((small_base / "config.json").read_text()), "torch_dtype": "float32"}
    assert json.loads((exported / "preprocessor_config.json").read_text())["max_pixels"] == 100352
    assert {path.stat().st_mode & 0o777 for path in exported.iterdir()} == {0o644}
    assert load_processor(exported).image_processor.size["longest_edge"] == 100352


def test_record_says_what_it_was_made_of(exported: Path, run: Path) -> None:
    adapter, found = find_adapter(run), find_adapter(exported)
    merged = found.record.merged
    assert merged is not None
    assert (merged.base_weights, merged.adapter, merged.adapter_sha256) == ("as trained", "plant", adapter.sha256())
    assert found.record == replace(adapter.record, load_in_4bit=False, merged=merged)
    assert found.base.folder == exported and found.sha256() == adapter.sha256()
    alone = {"load_in_4bit": False, "lora_r": 0, "lora_target_modules": LLM_LINEARS}
    assert found.values() == {**adapter.values(), **alone}
    assert asdict(read_record(exported))["schema_version"] == 4


def test_card_has_the_record_s_values(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert is_own_card(card)
    for said in ("From 0.25 on", "at most 100352", "--image-max-tokens 128", "torch.float32", "58 and 60"):
        assert said in card, said
    assert "None: the adapter wasn't evaluated before" in card
    requests = re.findall(r"printf '%s' '(\{.*?)'; base64 -w 0 frame.jpg; printf '%s' '(.*?)'\)", card)
    vllm, llama = (json.loads("/9j/".join(request)) for request in requests)
    for request in (vllm, llama):
        frame, question = request["messages"][0]["content"]
        assert frame["image_url"]["url"] == "data:image/jpeg;base64,/9j/"
        assert question["text"] == read_record(exported).prompt
    assert (vllm["logprob_token_ids"], llama["top_logprobs"]) == ([58, 60], 20)


def test_script_prints_the_folder_and_its_answers_are_infer_s(
    exported: Path, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for folder in (exported, run):
        capfd.readouterr()
        assert infer.main(["--adapter", str(folder), "--image", str(FRAME), "--json"]) == 0
        answers.append(json.loads(capfd.readouterr().out))
    assert answers[0]["label"] == answers[1]["label"]
    assert answers[0]["threshold"] == answers[1]["threshold"] == 0.25
    assert answers[0]["p_unsafe"] == pytest.approx(answers[1]["p_unsafe"], abs=1e-5)


def test_label_tokens_are_the_collator_s(exported: Path, run: Path) -> None:
    for folder in (exported, run):
        tokens = label_tokens(folder)
        tokenizer = load_processor(folder).tokenizer
        assert {label: token.id for label, token in tokens.items()} == {
            label: tokenizer.encode(label, add_special_tokens=False)[0] for label in ("SAFE", "UNSAFE")
        }
        assert [label.startswith(token.text) for label, token in tokens.items()] == [True, True]
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file"):
        label_tokens(exported.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda folder: (folder / "config.json").write_text((folder / "config.json").read_text() + " "),
            "aren't those",
        ),
        (lambda folder: (folder / "vocab.json").unlink(), "its files aren't those that were written"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"), "those that were written"),
        (lambda folder: (folder / "merges.txt").open("a").write("a b"), "aren't those that were written"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1_000_000), "is truncated or damaged"),
        (lambda folder: _flip(folder / "model.safetensors"), "aren't those that were written"),
        (lambda folder: (folder / "safety.json").unlink(), "no run lies there"),
    ],
)
def test_changed_files_are_no_export(exported: Path, tmp_path: Path, change: Any, said: str) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    find_adapter(folder)
    (folder / "README.md").write_text("a reader's own words change nothing")
    find_adapter(folder)
    change(folder)
    with pytest.raises(InputError, match=re.escape(said)):
        find_adapter(folder)


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_nothing_is_overwritten(run: Path, exported: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(InputError, match=r"exists, and nothing is overwritten"):
        export.main(["--adapter", str(run), "--out", str(exported)])
    assert before == {path.name: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(InputError, match=r"is an export, not an adapter; name the run"):
        export.main(["--adapter", str(exported), "--out", str(tmp_path / "again")])
    assert not list(tmp_path.iterdir())


def test_what_fails_half_way_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_weights: Any, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(exporting, "write_merged", fail)
        with pytest.raises(OSError, match="No space left"):
            export.main(["--adapter", str(run), "--out", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_first(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(folder: Path, size: int) -> None:
        asked.append((folder, size))
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(exporting, "check_writable", refuse)
    monkeypatch.setattr(exporting, "write_merged", lambda *_args: pytest.fail("begun"))
    with pytest.raises(OSError, match="No space left"):
        export.main(["--adapter", str(run), "--out", str(tmp_path / "out")])
    ((folder, size),) = asked
    assert folder == tmp_path and 28_900_000 < size < 29_200_000
    assert not list(tmp_path.iterdir())


KILLED = """
import os, sys
from recipes.adapter import exporting
from recipes import export
write = exporting.write_merged
def die(weights, folder):
    write(weights, folder)
    os.kill(os.getpid(), 9)
exporting.write_merged = die
export.main(sys.argv[1:])
"""


def test_what_a_killed_export_left_is_begun_anew(run: Path, exported: Path, tmp_path: Path) -> None:
    flags = ["--adapter", str(run), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", KILLED, *flags], cwd=PROJECT_ROOT, check=False, timeout=300)
    assert done.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".out.unfinished"]
    assert export.main(flags) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for path in exported.iterdir():
        if path.name != "README.md":  # which names its folder
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_two_at_once_are_one(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--adapter", str(run), "--out", str(tmp_path / "out")]
    write = exporting.write_merged

    def second_while_writing(weights: Any, folder: Path) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(exporting, "write_merged", write)
            with pytest.raises(InputError, match=r"another process is exporting to .*out; wait or end it"):
                export.main(flags)
        write(weights, folder)

    monkeypatch.setattr(exporting, "write_merged", second_while_writing)
    assert export.main(flags) == 0
    assert find_adapter(tmp_path / "out").record.merged


def test_a_second_one_finds_nothing_between_a_whole_folder_and_its_place(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is renamed with its lock held; who waited for it has a lock of nothing."""
    flags = ["--adapter", str(run), "--out", str(tmp_path / "out")]
    sync, tried = exporting.sync, []

    def second(path: Path) -> None:
        sync(path)
        tried.append(path.name)
        with monkeypatch.context() as patched:
            patched.setattr(exporting, "sync", sync)
            with pytest.raises(InputError, match=r"another process is exporting|exists, and nothing is overwritten"):
                export.main(flags)

    monkeypatch.setattr(exporting, "sync", second)
    assert export.main(flags) == 0
    assert len(tried) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").glob(".*"))
    find_adapter(tmp_path / "out")


def test_a_killed_one_s_rest_takes_no_room_from_the_next(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".out.unfinished").mkdir()
    (tmp_path / ".out.unfinished" / "model.safetensors").write_bytes(b"half")
    found = []
    monkeypatch.setattr(exporting, "check_writable", lambda folder, _size: found.append([*folder.glob("*/*.safe*")]))
    assert export.main(["--adapter", str(run), "--out", str(tmp_path / "out")]) == 0
    assert found == [[]]


def test_a_link_to_nowhere_is_in_the_way(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"exists, and nothing is overwritten"):
        export.main(["--adapter", str(run), "--out", str(tmp_path / "out")])


def test_figures_are_of_this_adapter_or_none(run: Path, tmp_path: Path, small_base: Path) -> None:
    adapter = random_adapter(small_base, tmp_path / "run")
    file = tmp_path / "run" / "eval" / "report.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"config": {"adapter_sha256": "another's"}}))
    Export(adapter, tmp_path / "out", CPU).write()
    assert "None: the adapter wasn't evaluated before" in (tmp_path / "out" / "README.md").read_text()
    file.write_text("{")
    with pytest.raises(InputError, match=r"report\.json is damaged; evaluate the adapter again"):
        Export(adapter, tmp_path / "other", CPU).write()
    assert not (tmp_path / "other").exists()


def test_no_path_of_a_machine_leaves_with_it(small_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(small_base, base)
    change_config(base, _name_or_path=str(base))
    adapter = random_adapter(base, tmp_path / "run", dataset=str(tmp_path / "data"))
    record = Export(adapter, tmp_path / "out", CPU).write()
    assert (record.base_model, record.dataset) == ("base", "data")
    RunFolder(tmp_path / "out").write_card(record)
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_shards_are_the_base_s(small_base: Path, exported: Path, tmp_path: Path) -> None:
    """Also of a base whose tensors go by transformers 5's names."""
    base = tmp_path / "base"
    shutil.copytree(small_base, base)
    (base / "model.safetensors").unlink()
    weights = load_file(small_base / "model.safetensors")
    named = {
        re.sub(r"^model\.", "model.language_model.", re.sub(r"^visual\.", "model.visual.", name)): weight
        for name, weight in weights.items()
        if not name.startswith("visual.")
    } | {f"model.{name}": weight for name, weight in weights.items() if name.startswith("visual.")}
    files = {f"model-0000{part + 1}-of-00002.safetensors": sorted(named)[part::2] for part in range(2)}
    for file, names in files.items():
        save_file({name: named[name] for name in names}, base / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file in files for name in files[file]}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    adapter = random_adapter(base, tmp_path / "run")
    Export(adapter, tmp_path / "out", CPU).write()
    written = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    one_file = load_file(exported / "model.safetensors")
    assert written["metadata"]["total_size"] == sum(4 * weight.numel() for weight in one_file.values())
    assert written["weight_map"].keys() == one_file.keys() and set(written["weight_map"].values()) == set(files)
    for file in files:
        for name, weight in load_file(tmp_path / "out" / file).items():
            assert written["weight_map"][name] == file and torch.equal(weight, one_file[name]), name
    assert len(load_for_batches(find_adapter(tmp_path / "out")).p_unsafe([read_image(FRAME)])) == 1


def test_original_weights_need_an_adapter_of_4_bits_and_its_run(
    run: Path, small_base: Path, packed_base: Path, tmp_path: Path
) -> None:
    random_adapter(small_base, tmp_path / "plain", load_in_4bit=False)
    out = ["--out", str(tmp_path / "out"), "--original-weights"]
    with pytest.raises(InputError, match=r"was trained on its base's own weights; leave it out"):
        export.main(["--adapter", str(tmp_path / "plain"), *out])
    random_adapter(packed_base, tmp_path / "packed")
    with pytest.raises(InputError, match=r"comes in 4 bits alone; leave it out"):
        export.main(["--adapter", str(tmp_path / "packed"), *out])
    with pytest.raises(InputError, match=r"run\.json, which says how to choose the threshold, is missing"):
        export.main(["--adapter", str(run), *out])
