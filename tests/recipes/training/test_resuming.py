"""Resumed or not, moved or not, killed between any two writes: the same adapter, of the same best step."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from benchmarks.measuring.recipe_arguments import recipe_arguments
from data_prep.errors import InputError
from recipes import sft_qwen2vl
from recipes.adapter.safety_record import is_finished, read_record
from recipes.metrics.linear_probe import read_probe
from recipes.training import session
from recipes.training.checkpoints import is_whole, step_of
from recipes.training.trainer import SafetyTrainer
from tests.tiny_data import many_clips, write_data

STEPS = 6  # ends within the second epoch, of four updates
ADAPTER = "adapter_model.safetensors"
LOG_ODDS = "log_odds.safetensors"

# What validation says at each step. The best is not the last.
MACRO_F1 = {1: 0.5, 2: 0.8, 3: 0.6, 4: 0.7, 5: 0.6, 6: 0.7}


@pytest.fixture(scope="module")
def settings(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The demo's YAML, shortened, with dropout, so that a run resumed with the wrong random state would show."""
    changed = {
        "model_name_or_path": small_base,
        "dataset": write_data(tmp_path_factory.mktemp("frames"), many_clips()),
        "max_steps": STEPS,
        "eval_steps": 1,
        "save_steps": 1,
        "lora_dropout": 0.1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "cache_vision_features": False,
        "linear_probe": False,
        "report_to": "none",
    }
    return recipe_arguments("recipes/configs/demo_cpu.yaml", changed)


@pytest.fixture(autouse=True)
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have validation say what MACRO_F1 does, in no time."""

    def evaluate(trainer: SafetyTrainer, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        metrics = {"eval_macro_f1": MACRO_F1[trainer.state.global_step]}
        trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        return metrics

    monkeypatch.setattr(SafetyTrainer, "evaluate", evaluate)
    monkeypatch.setattr(session, "use_all_cores", lambda: torch.set_num_threads(1))  # faster at this size


def train(settings: list[str], folder: Path, *more: str) -> int:
    return sft_qwen2vl.main([*settings, "--output_dir", str(folder), *more])


@dataclass(frozen=True)
class Outcome:
    """What must be the same however a run came about."""

    adapter: bytes
    log_odds: bytes
    best_step: int
    steps: int
    record: Any


def outcome(folder: Path) -> Outcome:
    summary = json.loads((folder / "training.json").read_text())
    adapter, log_odds = ((folder / name).read_bytes() for name in (ADAPTER, LOG_ODDS))
    return Outcome(adapter, log_odds, summary["best_step"], summary["steps"], read_record(folder))


@pytest.fixture(scope="module")
def uninterrupted(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patched:
        judged.__wrapped__(patched)  # type: ignore[attr-defined]
        folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
        assert train(settings, folder) == 0
        yield folder


class StopAfter(TrainerCallback):
    """Ask for a stop, as a signal does, in the update that begins after `step`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), 15)


def stopped(patched: pytest.MonkeyPatch, after: int) -> None:
    build = session.build_trainer

    def build_stopped(run: Any) -> Any:
        trainer = build(run)
        trainer.add_callback(StopAfter(after))
        return trainer

    patched.setattr(session, "build_trainer", build_stopped)


def test_best_is_not_the_last(uninterrupted: Path) -> None:
    found = outcome(uninterrupted)
    assert (found.best_step, found.steps) == (2, STEPS)
    assert found.adapter == (uninterrupted / "checkpoint-2" / ADAPTER).read_bytes()
    assert found.adapter != (uninterrupted / f"checkpoint-{STEPS}" / ADAPTER).read_bytes()


def test_run_stopped_at_each_update_and_moved_is_the_same_run(
    settings: list[str], uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "0"
    for step in range(STEPS - 1):
        with pytest.MonkeyPatch.context() as patched:
            stopped(patched, after=step)
            assert train(settings, folder, *(["--resume"] if step else [])) == 143
        moved = tmp_path / f"{step + 1}"
        folder.rename(moved)
        folder = moved
    assert train(settings, folder, "--resume") == 0
    assert outcome(folder) == outcome(uninterrupted)


def test_run_that_goes_on_with_other_layers_streamed_and_recomputed_is_the_same_run(
    settings: list[str], uninterrupted: Path, tmp_path: Path
) -> None:
    """A card that another program shares may have room for all layers today and for two tomorrow."""
    ways = (
        ["--layers_on_host", "all", "--vision_blocks_on_host", "4"],
        ["--layers_on_host", "3", "--activation_checkpointing", "false"],
    )
    for step, way in enumerate(ways):
        with pytest.MonkeyPatch.context() as patched:
            stopped(patched, after=step)
            assert train(settings, tmp_path / "run", *way, *(["--resume"] if step else [])) == 143
    assert train(settings, tmp_path / "run", "--resume") == 0
    assert outcome(tmp_path / "run") == outcome(uninterrupted)


@pytest.mark.parametrize("before", ["gone", "still there"])
def test_trained_run_is_moved_with_its_best_checkpoint(
    settings: list[str], uninterrupted: Path, tmp_path: Path, before: str
) -> None:
    """The path noted in the checkpoint is gone then or, where the run was copied, another run's."""
    copy = unfinished_copy(uninterrupted, tmp_path / "copy")
    other = tmp_path / before
    if before == "still there":
        unfinished_copy(uninterrupted, other)
        shutil.copyfile(other / f"checkpoint-{STEPS}" / ADAPTER, other / "checkpoint-2" / ADAPTER)
    for state in copy.glob("checkpoint-*/trainer_state.json"):
        state.write_text(state.read_text().replace(str(uninterrupted), str(other)))
    reseal(copy)
    assert train(settings, copy, "--resume") == 0
    assert outcome(copy) == outcome(uninterrupted)


def unfinished_copy(run: Path, to: Path) -> Path:
    """Copy a run as it is when it was killed right after its last checkpoint."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("tensorboard"))
    for file in to.iterdir():
        if file.is_file() and file.name != "run.json":
            file.unlink()
    return to


def reseal(run: Path) -> None:
    from recipes.training.checkpoints import seal

    for checkpoint in run.glob("checkpoint-*"):
        seal(checkpoint)


def test_run_without_its_best_checkpoint_is_refused(settings: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    run = unfinished_copy(uninterrupted, tmp_path / "run")
    shutil.rmtree(run / "checkpoint-2")
    with pytest.raises(InputError, match="checkpoint-2, the best so far, is missing or damaged"):
        train(settings, run, "--resume")


def test_moved_data_and_base_are_the_same_where_their_content_is(
    settings: list[str], uninterrupted: Path, tmp_path: Path, small_base: Path
) -> None:
    run = unfinished_copy(uninterrupted, tmp_path / "run")
    shutil.copytree(settings[settings.index("--dataset") + 1], tmp_path / "data")
    shutil.copytree(small_base, tmp_path / "base")
    moved = ["--dataset", str(tmp_path / "data"), "--model_name_or_path", str(tmp_path / "base")]
    assert train(settings, run, *moved, "--resume") == 0
    assert outcome(run).adapter == outcome(uninterrupted).adapter
    record = read_record(run)
    assert (record.dataset, record.base_model) == (str(tmp_path / "data"), str(tmp_path / "base"))
    assert json.loads((run / "run.json").read_text())["dataset"] == str(tmp_path / "data")


class Killed(BaseException):
    """What no code on the way out may catch."""


def killed_at(patched: pytest.MonkeyPatch, write: int) -> list[str]:
    """Have the process end right before its write of that number, and return the list that takes their names."""
    replace, torch_save = Path.replace, torch.save
    written: list[str] = []

    def count(name: str) -> None:
        if len(written) == write:
            raise Killed(name)
        written.append(name)

    def counted(path: Path, target: Path) -> Path:
        count(Path(target).name)
        return replace(path, target)

    def saved(*args: Any, **kwargs: Any) -> None:
        count("moments")
        torch_save(*args, **kwargs)

    patched.setattr(Path, "replace", counted)
    patched.setattr(torch, "save", saved)
    return written


def test_run_killed_before_any_write_of_its_end_is_the_same_run(
    settings: list[str], uninterrupted: Path, tmp_path: Path
) -> None:
    """One run after the other in one folder: each start gets one write further than the last."""
    run = unfinished_copy(uninterrupted, tmp_path / "run")
    expected, killed = outcome(uninterrupted), []
    for write in range(100):
        with pytest.MonkeyPatch.context() as patched:
            written = killed_at(patched, write)
            try:
                assert train(settings, run, "--resume") == 0
                break
            except Killed as point:
                killed.append(str(point))
                assert is_finished(run) == ("safety.json" in written)
        if is_finished(run):
            break
    assert {"training.json", LOG_ODDS, ADAPTER, "tokenizer.json", "README.md", "safety.json", "training.png"} <= set(
        killed
    )
    assert killed.index("safety.json") > max(killed.index(name) for name in (ADAPTER, "tokenizer.json", "README.md"))
    assert train(settings, run, "--resume") == 0
    assert outcome(run) == expected
    assert (run / "training.png").is_file()


def test_run_killed_while_a_checkpoint_is_saved_is_the_same_run(
    settings: list[str], uninterrupted: Path, tmp_path: Path
) -> None:
    run, killed = tmp_path / "run", []
    for write in (3, 5, 7, 9, 10, 11):
        with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed) as point:
            killed_at(patched, write)
            train(settings, run, *(["--resume"] if run.exists() else []))
        killed.append(str(point.value))
    assert {"moments", LOG_ODDS, "checkpoint.sha256.json"} <= set(killed)
    assert train(settings, run, "--resume") == 0
    assert outcome(run) == outcome(uninterrupted)


@pytest.mark.parametrize("stop_after", [2, 4])
def test_early_stopping_goes_on_counting(settings: list[str], tmp_path: Path, stop_after: int) -> None:
    """The best is step 2, and three validations in a row without a better one end the run at step 5."""
    patience, run = ["--early_stopping_patience", "3"], tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        stopped(patched, after=stop_after)
        assert train(settings, run, *patience) == 143
    assert train(settings, run, *patience, "--resume") == 0
    assert (outcome(run).best_step, outcome(run).steps) == (2, 5)
    assert max(step_of(path) for path in run.glob("checkpoint-*")) == 5
    if stop_after == 4:  # it had stopped by itself: nothing was left to train
        (run / "safety.json").unlink()
        assert train(settings, run, *patience, "--resume") == 0
        assert (outcome(run).best_step, outcome(run).steps) == (2, 5)


def test_trained_run_makes_no_further_update(
    settings: list[str], uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unfinished_copy(uninterrupted, tmp_path / "run")
    monkeypatch.setattr(SafetyTrainer, "training_step", None)
    assert train(settings, run, "--resume") == 0
    assert outcome(run) == outcome(uninterrupted)


def test_run_of_one_checkpoint_keeps_the_one_that_it_goes_on_from(settings: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        stopped(patched, after=3)
        assert train(settings, run, "--save_total_limit", "1") == 143
    assert sorted(path.name for path in run.glob("checkpoint-*") if is_whole(path)) == ["checkpoint-2", "checkpoint-4"]


def test_probe_that_fails_costs_a_line_and_is_fitted_by_the_next_start(
    settings: list[str],
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def out_of_memory(*_args: Any, **_kwargs: Any) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    run, wanted = unfinished_copy(uninterrupted, tmp_path / "run"), ["--linear_probe", "true", "--resume"]
    with monkeypatch.context() as patched:
        patched.setattr("recipes.metrics.linear_probe.fit_probe", out_of_memory)
        assert train(settings, run, *wanted) == 0
    said = capsys.readouterr()
    assert "the linear probe failed (MemoryError: Unable to allocate 9 GiB); the adapter is whole" in said.err
    assert said.out.strip() == str(run)
    assert outcome(run) == outcome(uninterrupted)
    assert read_probe(run) is None

    before = (run / ADAPTER).stat().st_mtime_ns
    assert train(settings, run, *wanted) == 0
    assert "finished already, but for its linear probe" in capsys.readouterr().err
    assert read_probe(run) is not None
    assert (run / ADAPTER).stat().st_mtime_ns == before


def test_adapter_that_learned_nothing_is_never_finished(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first update of a warm-up has a learning rate of 0, and its checkpoint may be judged the best."""
    monkeypatch.setitem(MACRO_F1, 1, 0.9)
    with pytest.raises(InputError, match=r"the adapter of step 1 is as it began: every B is zero"):
        train(settings, tmp_path / "run", "--max_steps", "3", "--warmup_steps", "2")
    assert not is_finished(tmp_path / "run")
    assert not (tmp_path / "run" / ADAPTER).exists()


def test_gradient_that_is_no_number_ends_training_before_it_is_applied(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = SafetyTrainer.training_step

    def poisoned(trainer: SafetyTrainer, *args: Any) -> torch.Tensor:
        loss = step(trainer, *args)
        if trainer.state.global_step == 2:
            trainer.trained.weights[0].grad.fill_(float("nan"))
        return loss

    monkeypatch.setattr(SafetyTrainer, "training_step", poisoned)
    with pytest.raises(InputError, match=r"the gradient of update 3 is no number \(nan\).*learning_rate below 0\.001"):
        train(settings, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    assert is_whole(tmp_path / "run" / "checkpoint-2")
