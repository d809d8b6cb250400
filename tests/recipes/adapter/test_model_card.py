import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from data_prep.media.frame_format import FrameFormat, shrunk_to
from data_prep.media.images import read_image
from recipes.adapter.model_card import is_own_card, model_card
from tests.recipes.adapter.test_safety_record import RECORD
from tests.report_by_hand import whole_report


def test_front_matter_is_what_the_hub_reads() -> None:
    data = ModelCard(model_card(RECORD, "outputs/run")).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("plant/base", "peft", "image-text-to-text")
    assert data.datasets == ["local/safe-unsafe-frames"]
    assert data.eval_results is None


def test_model_index_holds_the_report_s_figures() -> None:
    report = whole_report()
    data = ModelCard(model_card(RECORD, "outputs/run", report)).data
    assert data.model_name == "run" and data.eval_results is not None
    found = {(result.metric_type, result.metric_name): result.metric_value for result in data.eval_results}
    assert found == {
        (name, f"{words}, {unit}s"): report["results"][unit][name]
        for unit in ("frame", "clip")
        for name, words in {
            "accuracy": "Accuracy",
            "f1": "F1 of UNSAFE",
            "macro_f1": "Macro-F1",
            "auroc": "AUROC",
        }.items()
    }
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    low, high = report["results"]["frame"]["intervals"]["accuracy"]
    row = f"| Accuracy | 0.429 ({low:.3f} to {high:.3f}) | 0.500 ("
    assert row in model_card(RECORD, "outputs/run", report)


def test_figures_that_are_not_defined_are_left_out() -> None:
    report = whole_report()
    report["results"]["clip"] = None
    report["results"]["frame"]["auroc"] = None
    card = model_card(RECORD, "outputs/run", report)
    results = ModelCard(card).data.eval_results
    assert results is not None and len(results) == 3
    assert "| AUROC | - | - |" in card and "On 7 frames;" in card


def test_card_says_the_revision_of_a_base_from_the_hub_alone() -> None:
    assert 'from_pretrained("plant/base", dtype=torch.bfloat16, revision="c0ffee"' in model_card(RECORD, "outputs/run")
    local = replace(RECORD, base_model="./tiny_base/weights", load_in_4bit=False)
    card = model_card(local, "outputs/run")
    assert 'from_pretrained("./tiny_base/weights", dtype=torch.bfloat16)\n' in card and "four_bits" not in card


def test_whatever_a_name_or_prompt_holds_the_card_s_code_is_python() -> None:
    prompt = "Is it \"SAFE\" or 'UNSAFE'?\nAnswer {one} word: \\ é"
    record = replace(RECORD, prompt=prompt, base_model="./a\"b'c", dataset='./d"e')
    card = model_card(record, 'outputs/it\'s "mine"')
    loading, asking = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    strings = {node.value for node in ast.walk(ast.parse(loading + asking)) if isinstance(node, ast.Constant)}
    assert {prompt, record.base_model, 'outputs/it\'s "mine"'} <= strings
    assert "> Is it \"SAFE\" or 'UNSAFE'?\n> Answer {one} word: \\ é\n" in card
    assert ModelCard(card).data.base_model == record.base_model


def test_card_knows_whether_someone_changed_it() -> None:
    card = model_card(RECORD, "outputs/run", whole_report())
    assert is_own_card(card)
    assert not is_own_card(card.replace("It is not a safety device", "It is a safety device"))
    assert not is_own_card(card + "More.\n")
    assert not is_own_card("# My adapter\n")


@pytest.mark.parametrize("frames", [None, FrameFormat(32, 90)])
def test_card_s_code_opens_a_frame_as_the_adapter_does(tmp_path: Path, frames: FrameFormat | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.effect_noise((64, 48), 90).convert("RGB")
    picture.save(tmp_path / "frame.jpg", exif=exif)
    record = replace(RECORD, frames=frames)
    asking = re.findall(r"```python\n(.*?)```", model_card(record, "outputs/run"), flags=re.DOTALL)[1]
    program = asking[: asking.index("question =")].replace("frame.jpg", str(tmp_path / "frame.jpg"))
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["image"].size == ((24, 32) if frames else (48, 64))
    expected = shrunk_to(read_image(tmp_path / "frame.jpg"), record.max_side)
    np.testing.assert_array_equal(np.asarray(names["image"]), np.asarray(expected))
