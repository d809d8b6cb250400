"""What an earlier version wrote still loads, goes on and gives the same answers; CHANGELOG.md says what reads what."""

import shutil
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants
from safetensors.torch import load_file

from data_prep import build_jsonl, push_dataset
from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.errors import InputError
from data_prep.hub.source import open_dataset
from data_prep.media.frame_format import FrameFormat
from data_prep.media.images import read_image
from recipes import sft_qwen2vl
from recipes.adapter.folder import find_adapter
from recipes.answering.adapted_model import load_for_batches
from recipes.metrics.linear_probe import read_probe
from tests.conftest import Kept

ID = "local/safe-unsafe-tiny"
CONTENT = "f0766fda909abcf13fb56fc260de45cd55328253d283c7eef6ddc86402a56b18"

# What infer.py of that version answered.
P_UNSAFE = {
    "safe/4_te0/0000.jpg": 0.5148649215698242,
    "safe/4_te0/0001.jpg": 0.5371466279029846,
    "safe/5_te0/0000.jpg": 0.5300202965736389,
    "safe/5_te0/0001.jpg": 0.5764976739883423,
}


@pytest.fixture
def caches(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(kept.hf_home / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", kept.hf_home / "datasets")


def test_adapter_answers_as_it_did(kept: Kept) -> None:
    adapted = load_for_batches(find_adapter(kept.run))
    for name, p_unsafe in P_UNSAFE.items():
        assert adapted.p_unsafe([read_image(kept.data / "frames" / "test" / name)]) == pytest.approx(
            [p_unsafe], abs=1e-5
        )
    assert read_probe(kept.run) is not None
    assert adapted.record.frames is None and adapted.collator.max_side is None


def test_data_set_is_the_same_pushed_and_as_a_folder(kept: Kept, caches: None) -> None:
    for source in (open_dataset(ID), open_dataset(str(kept.data))):
        assert source.content_hash == CONTENT
        assert {split: len(source.rows(split)) for split in source.dataset} == dict.fromkeys(source.dataset, 16)
        assert source.audit is not None
    assert open_dataset(ID).frames is None
    assert open_dataset(str(kept.data)).frames == FrameFormat(None, 90)
    clips = read_clips(kept.data / CLIPS_FILE)
    assert len(clips) == 24
    assert {(clip.extractor, clip.samples, clip.faults) for clip in clips} == {(1, (0, 1), None)}


def test_data_pushed_again_are_a_version_of_the_same_content(kept: Kept, tmp_path: Path) -> None:
    """It has a column more, of cameras that aren't known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        assert push_dataset.main(["--data", str(kept.data), "--repo-id", ID]) == 0
        source = open_dataset(ID)
    assert source.content_hash == CONTENT
    assert source.dataset["test"].unique("camera") == [None]
    assert source.audit is not None and source.audit["cameras"] == {}


def test_rows_are_not_built_of_its_frames_again(kept: Kept, tmp_path: Path) -> None:
    data = shutil.copytree(kept.data, tmp_path / "data")
    with pytest.raises(InputError, match=r"24 clips were extracted by an earlier version.* run data_prep/extract_fram"):
        build_jsonl.main(["--data", str(data)])


def test_run_goes_on_to_where_it_went(kept: Kept, caches: None, tmp_path: Path) -> None:
    """To the adapter that the same run gave when nothing interrupted it."""
    run = tmp_path / "run"
    shutil.copytree(kept.unfinished, run)
    settings = ["--config", "recipes/configs/demo_cpu.yaml", "--dataset", ID, "--output_dir", str(run), "--resume"]
    settings += ["--max_steps", "4", "--lora_r", "2", "--lora_target_modules", "q_proj", "--max_pixels", "3136"]
    settings += ["--eval_steps", "2", "--save_steps", "2", "--cache_vision_features", "false"]
    assert sft_qwen2vl.main(settings) == 0
    found, expected = (load_file(folder / "adapter_model.safetensors") for folder in (run, kept.run))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() < 1e-5, name
    assert find_adapter(run).record == find_adapter(kept.run).record
