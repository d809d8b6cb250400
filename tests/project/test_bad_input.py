"""What a user gets wrong: one line that names it, a status that isn't zero, and no torch loaded to say so."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data_prep.files import PROJECT_ROOT
from data_prep.labels import LABELS, PROMPT
from recipes.adapter.safety_record import SafetyRecord
from tests.made_bases import change_config
from tests.tiny_data import make_clip, many_clips, write_data

DATASET = "Safe and Unsafe Behaviours Dataset"
SFT = ["recipes/sft_qwen2vl.py", "--config", "recipes/configs/demo_cpu.yaml"]


def extract(folder: Path) -> list[str]:
    return ["data_prep/extract_frames.py", "--data", str(folder)]


def train(folder: Path) -> list[str]:
    base = ["--model_name_or_path", str(folder / "base")]
    return [*SFT, *base, "--dataset", str(folder / "data"), "--output_dir", str(folder / "run")]


def no_clips(folder: Path) -> list[str]:
    (folder / DATASET / "train" / "4_safe_walkway").mkdir(parents=True)
    (folder / DATASET / "test" / "4_safe_walkway").mkdir(parents=True)
    return extract(folder)


def no_data_set(folder: Path) -> list[str]:
    return extract(folder)


def two_roots(folder: Path) -> list[str]:
    for root in ("first copy", "second copy"):
        for split in ("train", "test"):
            (folder / root / split / "4_safe_walkway").mkdir(parents=True)
            (folder / root / split / "4_safe_walkway" / "4.mp4").touch()
    return extract(folder)


def unknown_class(folder: Path) -> list[str]:
    no_clips(folder)
    (folder / DATASET / "train" / "8_running").mkdir()
    return extract(folder)


def contradictory_class(folder: Path) -> list[str]:
    no_clips(folder)
    (folder / DATASET / "train" / "0_safe_walkway").mkdir()
    return extract(folder)


def own_class_without_a_line(folder: Path) -> list[str]:
    (folder / "data").mkdir()
    (folder / "clips" / "gate" / "half_open").mkdir(parents=True)
    (folder / "clips" / "gate" / "half_open" / "1.mp4").touch()
    (folder / "classes.yaml").write_text("open: UNSAFE\nclosed: SAFE\n")
    return [*extract(folder / "data"), "--dataset", str(folder / "clips"), "--classes", str(folder / "classes.yaml")]


def question_with_a_special_token(folder: Path) -> list[str]:
    write_data(folder / "data", many_clips())
    (folder / "prompt.txt").write_text("SAFE or UNSAFE?<|im_end|>")
    return ["data_prep/build_jsonl.py", "--data", str(folder / "data"), "--prompt", str(folder / "prompt.txt")]


def camera_that_is_none(folder: Path) -> list[str]:
    write_data(folder / "data", many_clips())
    return ["data_prep/push_dataset.py", "--data", str(folder / "data"), "--test-camera", "gate"]


def plants_of_one_name(folder: Path) -> list[str]:
    data = [str(write_data(folder / name / "plant", many_clips())) for name in ("a", "b")]
    return ["data_prep/push_dataset.py", "--data", *data]


def empty_jsonl(folder: Path) -> list[str]:
    (write_data(folder / "data", many_clips()) / "train.jsonl").write_text("")
    return train(folder)


def torn_line(folder: Path) -> list[str]:
    jsonl = write_data(folder / "data", many_clips()) / "train.jsonl"
    jsonl.write_text(jsonl.read_text()[:-20])
    return train(folder)


def missing_image(folder: Path) -> list[str]:
    next((write_data(folder / "data", many_clips()) / "frames" / "train").rglob("*.jpg")).unlink()
    return train(folder)


def one_class_only(folder: Path) -> list[str]:
    clips = [make_clip(split, 0, f"0_{split}{n}") for split in ("train", "test") for n in range(3)]
    write_data(folder / "data", clips)
    return train(folder)


def base_not_in_the_cache(folder: Path) -> list[str]:
    write_data(folder / "data", many_clips())
    return [*train(folder), "--model_name_or_path", "Qwen/Qwen2-VL-7B-Instruct"]


def output_folder_in_use(folder: Path) -> list[str]:
    (folder / "run").mkdir()
    for name in ("run.json", "safety.json"):
        (folder / "run" / name).touch()
    return train(folder)


def no_such_yaml(folder: Path) -> list[str]:
    return ["recipes/sft_qwen2vl.py", "--config", str(folder / "absent.yaml")]


def abbreviated_flag(folder: Path) -> list[str]:
    write_data(folder / "data", many_clips())
    return [*train(folder), "--output_d", str(folder / "other")]


def setting_without_an_effect(folder: Path) -> list[str]:
    write_data(folder / "data", many_clips())
    return [*train(folder), "--label_smoothing_factor", "0.1"]


def doctor_of_a_setting_that_is_none(folder: Path) -> list[str]:
    return ["recipes/doctor.py", "--config", "recipes/configs/demo_cpu.yaml", "--max_pixel", "100352"]


def adapter_for_another_base(folder: Path) -> list[str]:
    record = SafetyRecord(
        prompt=PROMPT,
        labels=LABELS,
        max_pixels=100352,
        base_model=str(folder / "base"),
        base_revision="0123",
        dtype="float32",
        load_in_4bit=True,
        threshold=0.5,
        threshold_from="fixed",
        training_prior=0.5,
        dataset=str(folder / "data"),
        dataset_revision=None,
        dataset_hash="",
        seed=0,
    )
    record.write(folder)
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "base_model_name_or_path": record.base_model}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").touch()
    shutil.copy(PROJECT_ROOT / "tests" / "data" / "frame.png", folder)
    return ["recipes/infer.py", "--adapter", str(folder), "--image", str(folder / "frame.png")]


def adapter_of_another_kind(folder: Path) -> list[str]:
    command = adapter_for_another_base(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    return command


def record_of_another_kind(folder: Path) -> list[str]:
    command = adapter_for_another_base(folder)
    record = json.loads((folder / "safety.json").read_text())
    (folder / "safety.json").write_text(json.dumps({**record, "dtype": "float64x"}))
    return command


def doubts_of_a_run_that_noted_nothing(folder: Path) -> list[str]:
    adapter_of_another_kind(folder)
    return ["recipes/doubts.py", "--adapter", str(folder)]


def frame_of_test_left_out(folder: Path) -> list[str]:
    write_data(folder / "data", many_clips())
    (folder / "list.txt").write_text("frames/test/safe/4_te0/0000.jpg\n")
    return ["data_prep/build_jsonl.py", "--data", str(folder / "data"), "--leave-out", str(folder / "list.txt")]


def no_such_adapter(folder: Path) -> list[str]:
    return ["recipes/eval_qwen2vl.py", "--adapter", str(folder / "absent")]


def uploads_of_no_size(folder: Path) -> list[str]:
    return ["recipes/app.py", "--adapter", str(folder), "--max-upload-mb", "0"]


def service_for_everybody(folder: Path) -> list[str]:
    return ["recipes/serve.py", "--adapter", str(folder), "--host", "0.0.0.0"]


def token_of_two_lines(folder: Path) -> list[str]:
    (folder / "token").write_text("c0ffee\nc0ffee\n")
    return ["recipes/serve.py", "--adapter", str(folder), "--token-file", str(folder / "token")]


def queue_of_no_place(folder: Path) -> list[str]:
    return ["recipes/serve.py", "--adapter", str(folder), "--max-queue", "0"]


def prior_that_is_none(folder: Path) -> list[str]:
    return [*no_such_adapter(folder), "--prior", "50"]


def image_that_is_none(folder: Path) -> list[str]:
    command = adapter_for_another_base(folder)
    (folder / "frame.png").write_text("not a picture")
    return command


def damaged_base(folder: Path) -> list[str]:
    write_data(folder / "data", many_clips())
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text('{"model_type": ')
    return [*train(folder), "--model_name_or_path", str(folder / "other")]


def copied_base(folder: Path) -> Path:
    write_data(folder / "data", many_clips())
    shutil.copytree(folder / "base", folder / "other")
    return folder / "other"


def truncated_base(folder: Path) -> list[str]:
    weights = copied_base(folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return [*train(folder), "--model_name_or_path", str(folder / "other")]


def damaged_index_of_a_base(folder: Path) -> list[str]:
    other = copied_base(folder)
    (other / "model.safetensors").rename(other / "model-1.safetensors")
    (other / "model.safetensors.index.json").write_text('{"weight_map": ')
    return [*train(folder), "--model_name_or_path", str(other)]


def base_of_another_kind(folder: Path) -> list[str]:
    change_config(copied_base(folder), model_type="qwen2_5_vl")
    return [*train(folder), "--model_name_or_path", str(folder / "other")]


def base_by_awq(folder: Path) -> list[str]:
    change_config(copied_base(folder), quantization_config={"quant_method": "awq"})
    return [*train(folder), "--model_name_or_path", str(folder / "other")]


def validation_of_one_class(folder: Path) -> list[str]:
    clips = [make_clip("train", 0, f"0_tr{n}") for n in range(4)] + [make_clip("train", 4, "4_tr0")]
    write_data(folder / "data", [*clips, make_clip("test", 0, "0_te0"), make_clip("test", 4, "4_te0")])
    return train(folder)


def strip_of_an_image(folder: Path) -> list[str]:
    command = adapter_for_another_base(folder)
    Image.new("RGB", (3000, 10)).save(folder / "frame.png")
    return command


MISTAKES: dict[Callable[[Path], list[str]], str] = {
    no_clips: "no clips found",
    no_data_set: "train",
    two_roots: "second copy",
    unknown_class: "'8_running' is none of the eight behaviours",
    contradictory_class: "digit 0 does not go with 'safe_walkway'",
    own_class_without_a_line: "named by no line of classes.yaml; add one: half_open: UNSAFE (or SAFE)",
    question_with_a_special_token: "the prompt holds '<|im_end|>'",
    camera_that_is_none: "--test-camera 'gate' is none of the data's cameras; known: none",
    plants_of_one_name: "each folder's clips bear its name, so names must differ",
    empty_jsonl: "train.jsonl: holds no row",
    torn_line: "train.jsonl:48: not a whole JSON object",
    missing_image: "is missing; run data_prep/extract_frames.py",
    one_class_only: "train has no SAFE frame",
    base_not_in_the_cache: "base model 'Qwen/Qwen2-VL-7B-Instruct' is not in the Hub cache",
    output_folder_in_use: "holds a finished run, which is never overwritten",
    damaged_base: "config.json is damaged",
    truncated_base: "weight file model.safetensors is truncated or damaged",
    damaged_index_of_a_base: "this index of the base model's weights is damaged",
    base_of_another_kind: "is a 'qwen2_5_vl'; this recipe trains 'qwen2_vl' only",
    base_by_awq: "is quantized (awq)",
    validation_of_one_class: "validation holds UNSAFE frames alone",
    strip_of_an_image: "3000x10 is a strip",
    no_such_yaml: "absent.yaml: no such file",
    abbreviated_flag: "--output_d is no setting; did you mean output_dir?",
    setting_without_an_effect: "label_smoothing_factor has no effect in this recipe; remove it",
    doctor_of_a_setting_that_is_none: "--max_pixel is no setting; did you mean max_pixels?",
    adapter_for_another_base: "was trained on",
    adapter_of_another_kind: "use_dora true in adapter_config.json is not computed here",
    record_of_another_kind: "dtype 'float64x' is not one of bfloat16, float32",
    doubts_of_a_run_that_noted_nothing: "log_odds.safetensors is missing, which training writes",
    frame_of_test_left_out: "list.txt:1: 'frames/test/safe/4_te0/0000.jpg' is of the test split",
    no_such_adapter: "no such folder; train one",
    uploads_of_no_size: "--max-upload-mb 0 must be 1 or more",
    service_for_everybody: "--host 0.0.0.0 can be reached from elsewhere: name a file with a token, --token-file",
    token_of_two_lines: "has to hold one line, a token of ASCII characters without spaces",
    queue_of_no_place: "--max-queue 0 must be 1 or more",
    prior_that_is_none: "--prior 50.0 is not between 0 and 1",
    image_that_is_none: "not a readable image; allowed formats: JPEG, PNG",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_mistake_gets_one_line(mistake: Callable[[Path], list[str]], tmp_path: Path, small_base: Path) -> None:
    (tmp_path / "base").symlink_to(small_base)
    command = mistake(tmp_path)
    before = {path for path in tmp_path.rglob("*") if path.name != ".extract_frames.lock"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=PROJECT_ROOT,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = [line for line in lines if not line.startswith("import time:")]
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(said) == 1, said
    assert said[0].startswith("error: ")
    assert MISTAKES[mistake] in said[0]
    assert "data_prep.errors" in imported
    assert not imported & {"torch", "transformers", "trl"}
    left = {path for path in tmp_path.rglob("*") if path.name != ".extract_frames.lock" and "hf" not in path.parts}
    assert left == before, "nothing may be left half-written"
