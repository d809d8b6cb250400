"""Several processes train what one trains, and end well however one of them ends."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recipes import eval_qwen2vl, sft_qwen2vl
from recipes.adapter.safety_record import is_finished
from recipes.metrics.linear_probe import read_probe
from recipes.metrics.seen_rows import SeenRows, read_seen_rows
from recipes.training import session
from recipes.training.checkpoints import is_whole
from tests.recipes.ranks.launching import ADAPTER, FAULTY, SFT, apart, launched, lines_with, on_one_machine, short_run
from tests.tiny_data import many_clips, write_data

MOST_APART = 1e-5  # relative, in fp32

# 32 rows in updates of 6, which end with one of 2: of three processes one has none of it.
UNEVEN = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6, "max_steps": 12}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "use_all_cores", lambda: torch.set_num_threads(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("frames"), many_clips())


def seen(folder: Path) -> SeenRows:
    found = read_seen_rows(folder)
    assert found is not None
    return found


def assert_same_rows(first: Path, second: Path) -> None:
    """All rows were seen in the same updates, once each, with the same log-odds but for rounding."""
    one, other = seen(first), seen(second)
    assert one.row.tolist() == other.row.tolist()
    assert one.update.tolist() == other.update.tolist()
    np.testing.assert_allclose(one.log_odds, other.log_odds, atol=1e-4)


def logged(folder: Path, name: str) -> list[float]:
    history = json.loads((folder / "training.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


@pytest.fixture(scope="module")
def runs(small_base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of one process with 4 frames at once, and one of two with 2 each, features kept and a probe fitted."""
    at = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        one_thread.__wrapped__(patched)  # type: ignore[attr-defined]
        settings = short_run(small_base, data, linear_probe=True, cache_vision_features=True)
        alone = [*settings, "--output_dir", str(at / "one"), "--vision_cache", str(at / "features_one")]
        assert sft_qwen2vl.main(alone) == 0
    (at / "digests").mkdir()
    shared = [*settings, "--output_dir", str(at / "two"), "--vision_cache", str(at / "features_two")]
    done = launched([*on_one_machine(2), FAULTY, *shared], DIGESTS=str(at / "digests"))
    assert done.returncode == 0, done.stderr
    (at / "said").write_text(done.stderr)
    (at / "printed").write_text(done.stdout)
    return {path.name: path for path in at.iterdir()}


def test_two_processes_train_the_adapter_of_one(runs: dict[str, Path]) -> None:
    assert 0 < apart(runs["one"], runs["two"]) < MOST_APART
    for step in (5, 10, 15, 20):
        assert apart(runs["one"] / f"checkpoint-{step}", runs["two"] / f"checkpoint-{step}") < MOST_APART
    assert_same_rows(runs["one"], runs["two"])


def test_processes_hold_one_adapter_at_each_checkpoint(runs: dict[str, Path]) -> None:
    for step in (5, 10, 15, 20):
        digests = {(runs["digests"] / f"{step}-{rank}").read_text() for rank in (0, 1)}
        assert len(digests) == 1
    assert len({path.read_text() for path in runs["digests"].iterdir()}) == 4


def test_figures_of_validation_and_losses_are_those_of_all_rows(runs: dict[str, Path]) -> None:
    for name in ("eval_macro_f1", "eval_accuracy", "learning_rate", "epoch"):
        assert logged(runs["two"], name) == logged(runs["one"], name) != []
    for name in ("eval_loss", "eval_brier", "loss", "grad_norm", "train_loss"):
        np.testing.assert_allclose(logged(runs["two"], name), logged(runs["one"], name), rtol=1e-3)


def test_finished_run_that_lacks_its_probe_gets_it_of_the_first_process(
    runs: dict[str, Path], small_base: Path, data: Path, tmp_path: Path
) -> None:
    """It is launched as it was, and so by two, of which the other one has nothing to do."""
    run, probe = tmp_path / "two", "linear_probe.safetensors"
    shutil.copytree(runs["two"], run)
    fitted = (run / probe).read_bytes()
    (run / probe).unlink()
    settings = short_run(small_base, data, linear_probe=True, cache_vision_features=True)
    places = ["--output_dir", str(run), "--vision_cache", str(runs["features_two"])]
    done = launched([*on_one_machine(2), SFT, *settings, *places, "--resume"])
    assert done.returncode == 0, done.stderr
    assert lines_with("this very run has finished already, but for its linear probe", done.stderr)
    assert (run / probe).read_bytes() == fitted


def test_features_are_filled_and_the_probe_fitted_as_by_one(runs: dict[str, Path]) -> None:
    one, two = (
        {file.name: file.read_bytes() for file in runs[f"features_{name}"].glob("*/*/*")} for name in ("one", "two")
    )
    assert one == two != {}
    assert not list(runs["features_two"].glob(".seen*"))
    probe, shared = (read_probe(runs[name]) for name in ("one", "two"))
    assert probe is not None
    assert shared is not None
    np.testing.assert_array_equal(probe.weight, shared.weight)


def test_one_process_talks_and_writes(runs: dict[str, Path]) -> None:
    said, printed = runs["said"].read_text(), runs["printed"].read_text()
    for word in ("train 32 frames", "vision features: ", "steps 20", "'train_runtime'"):
        assert len(lines_with(word, said)) == 1
    assert printed.splitlines() == [str(runs["two"])]
    assert {path.name for path in runs["two"].iterdir()} == {path.name for path in runs["one"].iterdir()}


@pytest.mark.parametrize("processes", [2, 3])
def test_report_of_several_processes_is_that_of_one(runs: dict[str, Path], processes: int) -> None:
    """Batches of 3 of 16 frames: the last one is short, and a process has fewer than another."""
    evaluated = ["--adapter", str(runs["one"]), "--batch-size", "3"]
    report = runs["one"] / "eval"
    assert eval_qwen2vl.main(evaluated) == 0
    alone, scores = json.loads((report / "report.json").read_text()), (report / "predictions.jsonl").read_bytes()
    (report / "predictions.jsonl").unlink()
    done = launched([*on_one_machine(processes), "recipes/eval_qwen2vl.py", *evaluated])
    assert done.returncode == 0, done.stderr
    assert (report / "predictions.jsonl").read_bytes() == scores
    shared = json.loads((report / "report.json").read_text())
    for own in ("config", "latency_ms"):
        del shared[own], alone[own]
    assert shared == alone
    assert len(lines_with("frames evaluated", done.stderr)) == 1


def broken(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    done = launched(command, **variables)
    assert done.returncode != 0
    return done


@pytest.fixture(scope="module")
def uneven(small_base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of one process whose epochs end with a short update, and its settings."""
    at = tmp_path_factory.mktemp("uneven")
    settings = short_run(small_base, data, **UNEVEN)
    with pytest.MonkeyPatch.context() as patched:
        one_thread.__wrapped__(patched)  # type: ignore[attr-defined]
        assert sft_qwen2vl.main([*settings, "--output_dir", str(at / "one")]) == 0
    return {"settings": settings, "run": at / "one", "at": at}


def test_signal_to_one_of_three_stops_all_and_two_go_on(uneven: dict[str, Any]) -> None:
    """The update that the signal came in is made again: it is the same run, by other processes."""
    run = uneven["at"] / "signalled"
    settings = [*uneven["settings"], "--output_dir", str(run)]
    done = broken([*on_one_machine(3), FAULTY, *settings], FAULT="1 6 terminated")
    assert lines_with("stopped by a signal to a process: checkpoint-6 is saved, go on with --resume", done.stderr)
    assert is_whole(run / "checkpoint-6")
    assert not is_finished(run)
    done = launched([*on_one_machine(2), SFT, *settings, "--resume"])
    assert done.returncode == 0, done.stderr
    assert apart(uneven["run"], run) < MOST_APART
    assert_same_rows(uneven["run"], run)


def test_signal_right_after_a_checkpoint_leaves_that_one(uneven: dict[str, Any]) -> None:
    """The first process has it already, the others have no folder to see it in."""
    run = uneven["at"] / "signalled-at-once"
    done = broken([*on_one_machine(2), FAULTY, *uneven["settings"], "--output_dir", str(run)], FAULT="1 10 terminated")
    assert lines_with("stopped by a signal to a process: checkpoint-10 is saved, go on with --resume", done.stderr)
    assert "adapters differ" not in done.stderr and is_whole(run / "checkpoint-10")


@pytest.mark.parametrize("harm", ["killed", "killed while adding up"])
def test_killed_process_ends_the_run_with_a_line_and_one_goes_on(uneven: dict[str, Any], harm: str) -> None:
    run = uneven["at"] / harm
    settings = [*uneven["settings"], "--output_dir", str(run)]
    done = broken([*on_one_machine(2), FAULTY, *settings], FAULT=f"1 6 {harm}")
    assert lines_with("error: another process has ended: checkpoint-6 is saved, go on with --resume", done.stderr)
    assert is_whole(run / "checkpoint-6")
    assert sft_qwen2vl.main([*settings, "--resume"]) == 0
    assert apart(uneven["run"], run) < MOST_APART


@pytest.mark.parametrize(
    ("harm", "step", "told"),
    [
        ("terminated", 5, "stopped by a signal to a process: checkpoint-5 is saved, go on with --resume"),
        ("terminated", 12, "stopped by a signal to a process: checkpoint-12 is saved, go on with --resume"),
        ("killed", 5, "error: another process has ended: checkpoint-5 is saved, go on with --resume"),
    ],
)
def test_validation_that_one_leaves_is_made_as_the_run_goes_on(
    uneven: dict[str, Any], harm: str, step: int, told: str
) -> None:
    """The last one, too, after which there is nothing left to train."""
    run = uneven["at"] / f"{harm}-while-validating-{step}"
    settings = [*uneven["settings"], "--output_dir", str(run)]
    done = broken([*on_one_machine(2), FAULTY, *settings], FAULT=f"1 {step} {harm} while validating")
    assert lines_with(told, done.stderr)
    assert is_whole(run / f"checkpoint-{step}")
    done = launched([*on_one_machine(2), SFT, *settings, "--resume"])
    assert done.returncode == 0, done.stderr
    assert apart(uneven["run"], run) < MOST_APART
    for name in ("eval_accuracy", "eval_macro_f1"):
        assert logged(run, name) == logged(uneven["run"], name) != []


def test_signal_to_the_launcher_leaves_a_checkpoint_that_the_same_run_goes_on_from(uneven: dict[str, Any]) -> None:
    """With dropout, whose random numbers are an update's and a process's own, and the optimizer on the host."""
    settings = [*uneven["settings"], "--optimizer_on_host", "true", "--lora_dropout", "0.1", "--output_dir"]
    whole, run = (uneven["at"] / name for name in ("not-ended", "ended"))
    assert launched([*on_one_machine(2), SFT, *settings, str(whole)]).returncode == 0
    done = broken([*on_one_machine(2), FAULTY, *settings, str(run)], FAULT="0 6 launcher terminated")
    assert lines_with("saving a checkpoint before the next frames", done.stderr)
    assert is_whole(run / "checkpoint-6") or is_whole(run / "checkpoint-7")
    assert launched([*on_one_machine(2), SFT, *settings, str(run), "--resume"]).returncode == 0
    assert (run / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()
    assert apart(uneven["run"], run) > MOST_APART


def test_other_data_on_one_machine_is_told_in_a_line(uneven: dict[str, Any], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", many_clips(train_per_class=2))
    settings = [*uneven["settings"], "--output_dir", str(uneven["at"] / "other")]
    done = broken([*on_one_machine(2), FAULTY, *settings], OTHER_DATA=str(data))
    [line] = lines_with("error: ", done.stderr)
    assert "dataset_hash is " in line
    assert ", process 1" in line or "process 1 on" in line
    assert not (uneven["at"] / "other" / "run.json").exists()
