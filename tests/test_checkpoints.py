from collections.abc import Callable
from pathlib import Path

import pytest

from recipes.checkpoints import SEAL_NAME, is_whole, last_whole_checkpoint, seal


def make_checkpoint(run: Path, step: int) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
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


def test_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    assert last_whole_checkpoint(tmp_path) == (None, [])
