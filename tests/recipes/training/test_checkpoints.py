import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from recipes.training.checkpoints import SEAL_NAME, is_trained_out, is_whole, last_whole_checkpoint, seal


def make_checkpoint(run: Path, step: int) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * 100)
    (folder / "optimizer.pt").write_bytes(b"moments" * 100)
    seal(folder)
    return folder


@pytest.mark.parametrize(
    "tear",
    [
        lambda folder: (folder / SEAL_NAME).unlink(),
        lambda folder: (folder / SEAL_NAME).write_text('{"optimizer.pt": '),
        lambda folder: (folder / "optimizer.pt").unlink(),
        lambda folder: (folder / "optimizer.pt").write_bytes(b"moments" * 99),
        lambda folder: (folder / "optimizer.pt").write_bytes(b"momentS" * 100),
    ],
    ids=["no seal", "torn seal", "missing file", "cut file", "changed file"],
)
def test_torn_checkpoint_is_passed_over(tmp_path: Path, tear: Callable[[Path], object]) -> None:
    older, newer = make_checkpoint(tmp_path, 9), make_checkpoint(tmp_path, 10)
    assert last_whole_checkpoint(tmp_path) == (newer, [])
    tear(newer)
    assert not is_whole(newer)
    assert last_whole_checkpoint(tmp_path) == (older, [newer])


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE])
def test_checkpoint_that_cannot_be_read_is_not_taken_for_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Torn ones are removed."""

    def refuse(path: Path) -> NoReturn:
        raise OSError(number, os.strerror(number), str(path))

    make_checkpoint(tmp_path, 10)
    monkeypatch.setattr("recipes.training.checkpoints.sha256_of_file", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        last_whole_checkpoint(tmp_path)


def test_sealed_checkpoint_is_on_the_disk_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything under the seal before the seal, and the seal before anything older may go."""
    synced, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().relative_to(tmp_path.resolve()).as_posix())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    (tmp_path / "checkpoint-7" / "deep").mkdir(parents=True)
    (tmp_path / "checkpoint-7" / "deep" / "file").write_bytes(b"x")
    make_checkpoint(tmp_path, 7)
    names = ["adapter_model.safetensors", "deep", "deep/file", "optimizer.pt"]
    assert sorted(synced[:4]) == [f"checkpoint-7/{name}" for name in names]
    assert synced[4].startswith(f"checkpoint-7/.{SEAL_NAME}")
    assert synced[5:] == ["checkpoint-7", "."]


@pytest.mark.parametrize(
    ("step", "stopping", "due", "trained_out"),
    [
        (5, None, False, False),
        (6, None, False, True),
        (6, None, None, True),
        (6, None, True, False),
        (7, None, False, True),
        (4, (1, 2), False, False),
        (4, (2, 2), False, True),
        (4, (2, 2), True, False),
        (4, (0, 1), False, False),
    ],
)
def test_nothing_is_left_to_train(
    tmp_path: Path, step: int, stopping: tuple[int, int] | None, due: bool | None, trained_out: bool
) -> None:
    """`due` says whether a validation is noted as due, None where an earlier version noted nothing."""
    callbacks: dict[str, object] = {"TrainerControl": {"args": {"should_training_stop": True}, "attributes": {}}}
    if stopping:
        callbacks["EarlyStoppingCallback"] = {
            "args": {"early_stopping_patience": stopping[1], "early_stopping_threshold": 0.0},
            "attributes": {"early_stopping_patience_counter": stopping[0]},
        }
    if due is not None:
        callbacks["LateValidation"] = {"args": {}, "attributes": {"is_due": due}}
    state = {"global_step": step, "max_steps": 6, "stateful_callbacks": callbacks}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert is_trained_out(tmp_path) == trained_out


def test_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    assert last_whole_checkpoint(tmp_path) == (None, [])
