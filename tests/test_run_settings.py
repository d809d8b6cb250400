import re
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes.run_settings import Inputs, check_output_folder, read_inputs, record_settings, with_default_config

DEFAULT = str(PROJECT_ROOT / "recipes/configs/qwen2vl_7b_8gb.yaml")


def inputs(folder: Path, *, resume: bool = False) -> Inputs:
    return Inputs("local/frames", None, "plant/base", None, folder, resume)


def test_no_flag_means_the_8_gb_recipe() -> None:
    assert with_default_config([]) == ["--config", DEFAULT]
    found = read_inputs(with_default_config([]))
    assert found == Inputs(
        dataset="local/safe-unsafe-frames",
        dataset_revision=None,
        model_name_or_path="Qwen/Qwen2-VL-7B-Instruct",
        model_revision=None,
        output_dir=PROJECT_ROOT / "outputs/qwen2vl_7b_8gb",
        resume=False,
    )


def test_config_may_be_given_with_an_equals_sign() -> None:
    assert with_default_config(["--config=recipes/configs/qwen2vl_7b_8gb.yaml", "--resume"]) == [
        "--config",
        DEFAULT,
        "--resume",
    ]


def test_flags_override_the_yaml_in_both_spellings() -> None:
    found = read_inputs(with_default_config(["--output_dir", "outputs/x", "--dataset=data/demo", "--resume"]))
    assert (found.output_dir, found.dataset, found.resume) == (PROJECT_ROOT / "outputs/x", "data/demo", True)
    assert not read_inputs(with_default_config(["--resume", "false"])).resume


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not YAML"),
        ("- a\n- b\n", "must hold one 'name: value' a line"),
        ("output_dir: outputs/x\n", "model_name_or_path is not set"),
        ("model_name_or_path: plant/base\n", "output_dir is not set"),
        ("model_name_or_path: plant/base\noutput_dir: outputs/x\n", "dataset is not set"),
    ],
)
def test_unusable_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_inputs(["--config", str(path)])


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_inputs(["--config", str(tmp_path / "absent.yaml")])
    with pytest.raises(InputError, match="--config needs the path"):
        with_default_config(["--config"])


def test_output_folder_in_use_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    check_output_folder(inputs(run))
    run.mkdir()
    check_output_folder(inputs(run))
    (run / "notes.txt").touch()
    for resume in (False, True):
        with pytest.raises(InputError, match="is not empty and holds no run"):
            check_output_folder(inputs(run, resume=resume))
    (run / "run.json").touch()
    check_output_folder(inputs(run))  # nothing was saved yet, so nothing is lost
    (run / "checkpoint-5").mkdir()
    with pytest.raises(InputError, match="unfinished run; go on with --resume"):
        check_output_folder(inputs(run))
    (run / "safety.json").touch()
    with pytest.raises(InputError, match="finished run, which is never overwritten"):
        check_output_folder(inputs(run))
    check_output_folder(inputs(run, resume=True))
    with pytest.raises(InputError, match="is a file"):
        check_output_folder(inputs(run / "notes.txt"))


def test_continued_run_must_have_the_same_settings(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    begun = {"learning_rate": 1e-4, "dataset_hash": "aa", "dataloader_num_workers": 0}
    record_settings(run, {**begun, "learning_rate": 1.0})
    record_settings(run, begun)  # before the first checkpoint there is nothing to go on from
    (run / "checkpoint-5").mkdir()
    record_settings(run, {**begun, "dataloader_num_workers": 4})
    with pytest.raises(InputError, match=r"--resume: learning_rate was 0.0001 when run began and is 0.0002 now"):
        record_settings(run, {**begun, "learning_rate": 2e-4})
    with pytest.raises(InputError, match="dataset_hash was 'aa'"):
        record_settings(run, {**begun, "dataset_hash": "bb"})
