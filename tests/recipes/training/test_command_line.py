"""What a YAML and flags are read as, by the one parser that training and doctor.py share."""

import re
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes.layers.sizes import LLM_LINEARS
from recipes.training.command_line import DEFAULT_CONFIG, read_flags, read_settings

DEMO = ["--config", "recipes/configs/demo_cpu.yaml"]
LEAST = "model_name_or_path: plant/base\noutput_dir: outputs/x\ndataset: local/frames\nmax_pixels: 100352\n"


def write_yaml(folder: Path, text: str) -> list[str]:
    (folder / "run.yaml").write_text(text)
    return ["--config", str(folder / "run.yaml")]


def test_no_flag_means_the_7b() -> None:
    found = read_settings([])
    assert found.config == PROJECT_ROOT / DEFAULT_CONFIG
    expected = {
        "dataset": "local/safe-unsafe-frames",
        "dataset_revision": None,
        "model_name_or_path": "Qwen/Qwen2-VL-7B-Instruct",
        "model_revision": "main",
        "output_dir": "outputs/qwen2vl_7b",
        "resume": False,
    }
    assert {name: found.values[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--output_dir", "outputs/x"], "output_dir", "outputs/x"),
        (["--output-dir", "outputs/x"], "output_dir", "outputs/x"),
        (["--output_dir=outputs/x"], "output_dir", "outputs/x"),
        (["--output_dir=-x"], "output_dir", "-x"),
        (["--seed", "1", "--seed", "2"], "seed", 2),
        (["--max_steps", "-1"], "max_steps", -1),
        (["--learning_rate", "1e-4"], "learning_rate", 1e-4),
        (["--resume"], "resume", True),
        (["--resume", "--seed", "1"], "resume", True),
        (["--resume", "false"], "resume", False),
        (["--resume=false"], "resume", False),
        (["--no_resume"], "resume", False),
        (["--no-linear-probe"], "linear_probe", False),
        (["--linear_probe", "0"], "linear_probe", False),
        (["--linear_probe", "false", "--linear_probe"], "linear_probe", True),
        (["--lora_target_modules", "q_proj", "v_proj"], "lora_target_modules", ["q_proj", "v_proj"]),
        (["--lora_target_modules", "q_proj"], "lora_target_modules", ["q_proj"]),
        (["--lr_scheduler_kwargs", '{"num_cycles": 2}'], "lr_scheduler_kwargs", {"num_cycles": 2}),
        (["--early_stopping_patience", "null"], "early_stopping_patience", None),
        (["--threshold", "0.3"], "threshold", "0.3"),
    ],
)
def test_flag_overrides_the_yaml_in_every_spelling(flags: list[str], name: str, value: Any) -> None:
    assert read_settings([*DEMO, *flags]).values[name] == value


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output_d", "x"], "--output_d is no setting; did you mean output_dir?"),
        (["--conf", "x.yaml"], "--conf is no setting"),
        (["--reume"], "--reume is no setting; did you mean resume?"),
        (["stray"], "--config needs the path of a YAML file, one, not recipes/configs/demo_cpu.yaml stray"),
        (["--learning_rate", "-1e-4"], "-1e-4 is no setting"),
        (["--seed"], "--seed takes one value"),
        (["--seed", "1", "2"], "--seed takes one value, not 1 2"),
        (["--seed", "one"], "seed 'one' is not a whole number"),
        (["--seed", "1.5"], "seed '1.5' is not a whole number"),
        (["--resume", "perhaps"], "resume 'perhaps' is not true or false"),
        (["--config"], "--config needs the path"),
        (["--lr_scheduler_kwargs", "cycles"], "lr_scheduler_kwargs 'cycles' is not a mapping in JSON"),
        (["--lora_target_modules", "all-linear"], "lora_target_modules: all-linear not among q_proj, k_proj"),
        (["--packing"], "packing has no effect in this recipe; remove it"),
        (["--save_only_model", "true"], "save_only_model would leave checkpoints that can't be gone on from"),
    ],
)
def test_flag_that_says_nothing_is_refused_in_a_line(flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_settings([*DEMO, *flags])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not YAML"),
        ("- a\n- b\n", "must hold one 'name: value' a line"),
        ("output_dir: outputs/x\n", "model_name_or_path is not set"),
        ("model_name_or_path: plant/base\n", "output_dir is not set"),
        ("model_name_or_path: plant/base\noutput_dir: outputs/x\n", "dataset is not set"),
        (LEAST.replace("max_pixels: 100352", ""), "max_pixels is not set"),
        (f"{LEAST}learning_rat: 1\n", "'learning_rat' is no setting; did you mean learning_rate?"),
        (f"{LEAST}output-dir: x\n", "'output-dir' is no setting; did you mean output_dir?"),
        (f"{LEAST}max_grad_norm: null\n", "max_grad_norm is null; give it a value"),
        (f"{LEAST}label_smoothing_factor: 0.1\n", "label_smoothing_factor has no effect"),
        (f"{LEAST}max_length: 1024\n", "max_length has no effect"),
    ],
)
def test_unusable_yaml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_settings(write_yaml(tmp_path, text))


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_settings(["--config", str(tmp_path / "absent.yaml")])


def test_line_that_says_what_is_so_anyway_is_let_be(tmp_path: Path) -> None:
    text = f"{LEAST}packing: false\nmax_length: null\nremove_unused_columns: false\nuse_dora: no\n"
    assert read_settings(write_yaml(tmp_path, text)).given["packing"] is False


def test_lines_that_are_missing_have_the_libraries_defaults(tmp_path: Path) -> None:
    values = read_settings(write_yaml(tmp_path, LEAST)).values
    assert (values["lora_r"], values["save_total_limit"], values["balance_labels"]) == (16, None, True)
    assert values["lora_target_modules"] == LLM_LINEARS
    assert (values["bf16"], values["activation_checkpointing"]) == (True, True), "what TRL makes of their absence"


def test_one_target_of_lora_may_stand_alone_in_a_yaml(tmp_path: Path) -> None:
    assert read_settings(write_yaml(tmp_path, f"{LEAST}lora_target_modules: v_proj\n")).values[
        "lora_target_modules"
    ] == ["v_proj"]


def test_only_what_is_written_counts_as_a_flag() -> None:
    assert read_flags([]) == {}
    assert read_flags(["--seed", "1"]) == {"seed": "1"}


@pytest.mark.parametrize(("written", "meant"), [("ALL", "all"), ("014", "14"), (" 3 ", "3")])
def test_count_of_layers_is_read_once_however_it_is_written(written: str, meant: str) -> None:
    config = ["--config", "recipes/configs/qwen2vl_7b.yaml"]
    settings = read_settings([*config, "--layers_on_host", written, "--recomputed_layers", written])
    assert settings.values["layers_on_host"] == settings.values["recomputed_layers"] == meant


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        ([], "gradient_accumulation_steps", 2),
        (["--frames_times_processes"], "gradient_accumulation_steps", 8),
        (["--frames_times_processes", "--frames_an_update", "6"], "frames_an_update", 24),
    ],
)
def test_update_has_as_many_frames_whatever_the_processes_unless_told(flags: list[str], name: str, value: int) -> None:
    given = ["--config", "recipes/configs/demo_cpu.yaml", "--gradient_accumulation_steps", "2", *flags]
    assert read_settings(given).for_processes(4).values[name] == value
    assert read_settings(given).for_processes(1).values[name] == read_settings(given).values[name]
