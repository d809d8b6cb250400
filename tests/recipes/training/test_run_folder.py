import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import InputError
from recipes.adapter.model_card import is_own_card
from recipes.layers.sizes import LLM_LINEARS
from recipes.metrics.seen_rows import SeenRows, read_seen_rows
from recipes.training.checkpoints import is_whole
from recipes.training.run_folder import RunFolder
from tests.recipes.adapter.test_safety_record import RECORD
from tests.report_by_hand import whole_report

SEEN = SeenRows(np.array([2, 0]), np.array([1, 1]), np.array([0.5, -0.5], np.float32))


def test_output_folder_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = RunFolder(path)
    run.check_free(resume=False)
    path.mkdir()
    run.check_free(resume=False)
    (path / "notes.txt").touch()
    for resume in (False, True):
        with pytest.raises(InputError, match="is not empty and holds no run"):
            run.check_free(resume=resume)
    (path / "run.json").touch()
    run.check_free(resume=False)  # nothing was saved yet, so nothing is lost
    (path / "checkpoint-5").mkdir()
    with pytest.raises(InputError, match="unfinished run; go on with --resume"):
        run.check_free(resume=False)
    (path / "safety.json").touch()
    with pytest.raises(InputError, match="finished run, which is never overwritten"):
        run.check_free(resume=False)
    run.check_free(resume=True)
    with pytest.raises(InputError, match="is a file"):
        RunFolder(path / "notes.txt").check_free(resume=False)


@pytest.fixture
def begun(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.record({"learning_rate": 1.0})
    run.record(SETTINGS)  # before the first checkpoint there is nothing to go on from
    (run.path / "checkpoint-5").mkdir()
    return run


SETTINGS = {
    "learning_rate": 1e-4,
    "dataset_hash": "aa",
    "dataset": "/home/me/frames",
    "model_name_or_path": "/home/me/base",
    "base_revision": "bb",
    "threshold": "0.5",
    "linear_probe": True,
    "report_to": ["tensorboard"],
    "logging_steps": 10,
    "save_total_limit": 2,
    "dataloader_num_workers": 0,
    "lora_target_modules": LLM_LINEARS,
}


@pytest.mark.parametrize(
    "changed",
    [
        {"dataset": "/workspace/frames", "model_name_or_path": "/workspace/base"},
        {"linear_probe": False},
        {"threshold": "macro_f1"},
        {"report_to": []},
        {"logging_steps": 1},
        {"save_total_limit": 5},
        {"dataloader_num_workers": 4},
    ],
)
def test_what_the_adapter_does_not_depend_on_is_free(begun: RunFolder, changed: dict[str, object]) -> None:
    begun.record({**SETTINGS, **changed})
    assert json.loads((begun.path / "run.json").read_text()) == {**SETTINGS, **changed}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 2e-4}, "--resume: learning_rate was 0.0001 when run began and is 0.0002 now"),
        ({"dataset_hash": "bb"}, "--resume: dataset_hash was 'aa'"),
        ({"base_revision": "cc"}, "--resume: base_revision was 'bb'"),
        ({"lora_target_modules": ["q_proj"]}, "--resume: lora_target_modules was"),
        ({"embedding_on_host": True}, "--resume: embedding_on_host was None"),
    ],
)
def test_what_it_depends_on_is_not(begun: RunFolder, changed: dict[str, object], message: str) -> None:
    before = (begun.path / "run.json").read_bytes()
    with pytest.raises(InputError, match=re.escape(message)):
        begun.record({**SETTINGS, **changed})
    assert (begun.path / "run.json").read_bytes() == before


def test_finished_run_keeps_its_threshold(begun: RunFolder) -> None:
    (begun.path / "safety.json").touch()
    before = (begun.path / "run.json").stat().st_mtime_ns
    begun.record({**SETTINGS, "dataset": "elsewhere"})
    with pytest.raises(InputError, match=r"threshold was '0\.5'"):
        begun.record({**SETTINGS, "threshold": "macro_f1"})
    assert (begun.path / "run.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("recorded", [None, "q_proj"])
def test_targets_of_lora_are_compared_as_lists(begun: RunFolder, recorded: str | None) -> None:
    """As they were once recorded, just as the YAML had them."""
    (begun.path / "run.json").write_text(json.dumps({**SETTINGS, "lora_target_modules": recorded}))
    begun.record({**SETTINGS, "lora_target_modules": ["q_proj"] if recorded else LLM_LINEARS})


def test_summary_of_the_training_itself_outlives_a_later_start(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_summary({"seconds": 9}, trained=True)
    run.write_summary({"seconds": None}, trained=False)
    assert json.loads((tmp_path / "training.json").read_text()) == {"seconds": 9}


def test_adapter_can_be_read_by_others_than_who_trained_it(tmp_path: Path) -> None:
    """Safetensors writes files for their owner alone, which for a container's root is nobody else."""

    def save(folder: Path) -> None:
        (folder / "adapter_model.safetensors").touch(mode=0o600)

    RunFolder(tmp_path).write_adapter(save)
    assert (tmp_path / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o644


def test_lock_files_alone_are_an_empty_folder(tmp_path: Path) -> None:
    for name in (".lock", ".lock.held"):
        (tmp_path / name).touch()
    RunFolder(tmp_path).check_free(resume=False)


def test_card_is_written_anew_until_someone_changes_a_finished_run_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRL has left cards of its own in runs that aren't finished."""
    run, card = RunFolder(tmp_path), tmp_path / "README.md"
    card.write_text("# Model Card for run\n")
    run.write_card(RECORD)
    run.finish(RECORD)
    without_figures = card.read_text()
    run.write_card(RECORD, whole_report())
    assert is_own_card(card.read_text()) and card.read_text() != without_figures
    card.write_text("Mine.\n")
    run.write_card(RECORD)
    assert card.read_text() == "Mine.\n"
    assert "README.md was changed by hand and stays as it is" in capsys.readouterr().err
    card.unlink()
    run.write_card(RECORD)
    assert card.read_text() == without_figures


def test_older_checkpoints_go_once_the_new_one_is_whole(tmp_path: Path) -> None:
    def save_as(step: int) -> None:
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")

    def fail() -> None:
        save_as(4)
        raise OSError("no room")

    run, best = RunFolder(tmp_path), str(tmp_path / "checkpoint-1")
    for step in (1, 2, 3):
        run.write_checkpoint(step, lambda step=step: save_as(step), SEEN, kept=2, best=best)  # type: ignore[misc]
    names = ["checkpoint-1", "checkpoint-3"]
    seen = read_seen_rows(tmp_path / "checkpoint-3")
    assert seen is not None and seen.row.tolist() == [2, 0]
    (tmp_path / "checkpoint-1" / "log_odds.safetensors").rename(tmp_path / "checkpoint-1" / "elsewhere")
    assert not is_whole(tmp_path / "checkpoint-1"), "a checkpoint that lost what was noted isn't gone on from"
    (tmp_path / "checkpoint-1" / "elsewhere").rename(tmp_path / "checkpoint-1" / "log_odds.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    with pytest.raises(OSError, match="no room"):
        run.write_checkpoint(4, fail, SEEN, kept=1, best=None)
    assert sorted(path.name for path in tmp_path.iterdir() if is_whole(path)) == names


def test_run_with_dropout_goes_on_with_as_many_processes(begun: RunFolder) -> None:
    """Each drops out by random numbers of its own. A run of one that was begun before there could be several is one."""
    begun.record({**SETTINGS, "processes": 1})
    with pytest.raises(InputError, match=r"--resume: processes was 1 when run began and is 2 now"):
        begun.record({**SETTINGS, "processes": 2})
