"""A validation that was cut off: the run goes on as one that nothing disturbed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring.recipe_arguments import recipe_arguments
from recipes import sft_qwen2vl
from recipes.adapter.safety_record import is_finished
from recipes.model.device import CardFullError
from recipes.training.checkpoints import is_trained_out, is_whole
from recipes.training.trainer import SafetyTrainer
from tests.tiny_data import many_clips, write_data

ADAPTER = "adapter_model.safetensors"
STEPS = 6  # judged at each second
PATIENT = {"early_stopping_patience": 1, "learning_rate": 1e-9}  # nothing gets better: the second validation ends it


@pytest.fixture(scope="module")
def settings(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "model_name_or_path": small_base,
        "dataset": write_data(tmp_path_factory.mktemp("frames"), many_clips()),
        "max_steps": STEPS,
        "eval_steps": 2,
        "save_steps": 2,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "cache_vision_features": False,
        "linear_probe": False,
        "report_to": "none",
    }


def train(settings: dict[str, Any], folder: Path, *more: str) -> int:
    changed = {**settings, "output_dir": folder}
    return sft_qwen2vl.main([*recipe_arguments("recipes/configs/demo_cpu.yaml", changed), *more])


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(settings, folder) == 0
    return folder


def harm(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have a signal come as a step's validation begins."""
    score = SafetyTrainer.score

    def harmed(trainer: SafetyTrainer, *args: Any, **how: Any) -> Any:
        if trainer.state.global_step == step and how:  # what evaluate alone gives
            os.kill(os.getpid(), signal.SIGTERM)
        return score(trainer, *args, **how)

    monkeypatch.setattr(SafetyTrainer, "score", harmed)


def judged(folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    """Return the best step and the figures of all validations."""
    summary = json.loads((folder / "training.json").read_text())
    return summary["best_step"], [entry for entry in summary["log_history"] if "eval_loss" in entry]


def assert_same(run: Path, whole: Path) -> None:
    assert judged(run) == judged(whole)
    assert (run / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()


@pytest.mark.parametrize("step", [2, STEPS])
def test_signal_in_a_validation_is_obeyed_before_the_next_batch(
    settings: dict[str, Any],
    whole: Path,
    step: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, checkpoint = tmp_path / "run", tmp_path / "run" / f"checkpoint-{step}"
    with monkeypatch.context() as patched:
        harm(patched, step)
        assert train(settings, run) == 143
    assert f"stopped by SIGTERM: checkpoint-{step} is saved, go on with --resume" in capsys.readouterr().err
    assert is_whole(checkpoint) and not is_trained_out(checkpoint) and not is_finished(run)
    with monkeypatch.context() as patched:  # and again, as the run goes on: nothing is lost
        harm(patched, step)
        assert train(settings, run, "--resume") == 143
    assert is_whole(checkpoint)
    assert train(settings, run, "--resume") == 0
    assert_same(run, whole)


@pytest.mark.parametrize(
    ("save_strategy", "update", "saved"),
    [("epoch", 1, 2), ("epoch", 3, 4), ("steps", 3, 4)],
    ids=["before an epoch's end", "at an epoch's end", "at an epoch's end that is saved as an update's"],
)
def test_validation_of_an_epoch_is_made_once_where_a_stop_came_with_it(
    settings: dict[str, Any],
    save_strategy: str,
    update: int,
    saved: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of four updates an epoch."""
    judged_by_save = save_strategy == "epoch"
    by_epoch = {
        **settings,
        "max_steps": -1,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "eval_strategy": "epoch",
        "save_strategy": save_strategy,
        "load_best_model_at_end": judged_by_save,
    }
    assert train(by_epoch, tmp_path / "whole") == 0
    add = SafetyTrainer.add_micro_batch

    def signalled(trainer: SafetyTrainer, *args: Any) -> Any:
        if trainer.state.global_step == update:
            os.kill(os.getpid(), signal.SIGTERM)
        return add(trainer, *args)

    with monkeypatch.context() as patched:
        patched.setattr(SafetyTrainer, "add_micro_batch", signalled)
        assert train(by_epoch, tmp_path / "run") == 143
    assert is_whole(tmp_path / "run" / f"checkpoint-{saved}")
    assert train(by_epoch, tmp_path / "run", "--resume") == 0
    assert [entry["step"] for entry in judged(tmp_path / "run")[1]] == [4, 8]
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_early_stopping_counts_a_validation_that_was_made_late(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is the best, the second ends the run: no update is made after it."""
    patient = {**settings, **PATIENT}
    assert train(patient, tmp_path / "whole") == 0
    with monkeypatch.context() as patched:
        harm(patched, 4)
        assert train(patient, tmp_path / "run") == 143
    assert train(patient, tmp_path / "run", "--resume") == 0
    assert len(judged(tmp_path / "run")[1]) == 2
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_validation_that_found_no_memory_is_made_as_the_run_goes_on(
    settings: dict[str, Any],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"

    def full(*_: Any, **__: Any) -> Any:
        raise CardFullError("the card is full")

    with monkeypatch.context() as patched:
        patched.setattr("recipes.training.trainer.score_rows", full)
        with pytest.raises(Exception, match="validation: the card is full; checkpoint-2 is saved, go on with --resume"):
            train(settings, run)
    assert train(settings, run, "--resume") == 0
    assert "resuming from checkpoint-2" in capsys.readouterr().err
    assert_same(run, whole)
