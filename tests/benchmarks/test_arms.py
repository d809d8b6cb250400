"""What the benchmarks on a GPU share: arms by their names, each in a process of its own, and the runs they start."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_bases, bench_infer, bench_train
from benchmarks.arms import bases, infer, train
from benchmarks.measuring.arms import SMALL_CARD_WORKSPACE, measure_arm
from benchmarks.measuring.checkouts import checkouts
from benchmarks.measuring.recipe_arguments import CONFIG, FIXED, fixed_arguments
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes.machine.plan import PLANNED
from recipes.training.checks import check_placement
from recipes.training.command_line import read_settings

VARIABLE = next(iter(SMALL_CARD_WORKSPACE))


@pytest.mark.parametrize(("benchmark", "arms"), [(bench_bases, bases), (bench_infer, infer), (bench_train, train)])
def test_a_benchmark_s_arms_are_those_of_its_script(benchmark: Any, arms: Any) -> None:
    assert sorted(benchmark.ARMS) == sorted(arms.ARMS)


@pytest.mark.parametrize(("arm", "workspace"), [("small", ":4096:2:16:8"), ("large", None)])
def test_an_arm_s_figures_are_the_one_line_on_stdout(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arm: str,
    workspace: str | None,
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop(VARIABLE, None)

    def measured(out: Path) -> dict[str, Any]:
        print("a library's talk")
        return {"out": str(out), "offline": os.environ["HF_HUB_OFFLINE"], "workspace": os.environ.get(VARIABLE)}

    arms = {"small": measured, "large": measured}
    assert measure_arm([arm, "--out", str(tmp_path)], "", arms, as_on_small_cards=("small",)) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"out": str(tmp_path), "offline": "1", "workspace": workspace}
    assert said.err == "a library's talk\n"


def test_a_recipe_is_run_with_its_yaml_and_what_is_changed() -> None:
    found = read_settings(fixed_arguments("8gb", {"max_steps": 3, "per_device_eval_batch_size": 1}))
    assert found.config == PROJECT_ROOT / CONFIG
    assert {name: found.values[name] for name in PLANNED} == {**FIXED["8gb"], "per_device_eval_batch_size": 1}
    assert (found.values["max_steps"], found.values["frames_an_update"]) == (3, None)


@pytest.mark.parametrize("recipe", FIXED)
def test_a_fixed_recipe_says_all_that_a_plan_would(recipe: str) -> None:
    settings = read_settings(fixed_arguments(recipe, {})).values
    assert set(FIXED[recipe]) == set(PLANNED) and settings["frames_an_update"] is None
    assert settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] == 16
    check_placement(settings)


def test_an_earlier_version_is_one_that_can_be_measured(tmp_path: Path) -> None:
    assert checkouts(None, measured_by="benchmarks/arms/report.py") == {"now": PROJECT_ROOT}
    with pytest.raises(InputError, match=rf"--before {tmp_path}: no data_prep there; name a checkout of a version"):
        checkouts(str(tmp_path), measured_by="data_prep")
    (tmp_path / "data_prep").mkdir()
    assert checkouts(str(tmp_path), measured_by="data_prep") == {"now": PROJECT_ROOT, "before": tmp_path}
