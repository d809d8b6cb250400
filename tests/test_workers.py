"""Processes that die of their work; what is handed to them here lies in this module, for they import it."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from data_prep.workers import processes_here, results


def work(piece: int, folder: Path) -> tuple[int, str]:
    """Return the piece, or die of it as its number says; a line in `folder` tells of every try."""
    with (folder / str(piece)).open("a") as file:
        file.write("tried\n")
    if piece == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if piece == 5:
        os.abort()
    if piece == 7:
        os._exit(9)
    if piece == 8:
        raise OSError(28, "No space left on device")
    time.sleep(0.01)
    return piece, "done"


def died(piece: int, folder: Path, cause: str) -> tuple[int, str]:
    return piece, cause


def kill_neighbours_once(piece: int, folder: Path) -> tuple[int, str]:
    """Die in the pool, as one does that the system picks while memory is short, and not when tried again."""
    if piece == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return piece, "done"


def test_only_what_a_process_dies_of_is_lost(tmp_path: Path) -> None:
    with processes_here(1) as pool:
        found = list(results(pool, work, died, [(piece, tmp_path) for piece in range(8)]))
    assert dict(found) == {
        **dict.fromkeys((0, 1, 2, 4, 6), "done"),
        3: "SIGKILL: out of memory?",
        5: "SIGABRT",
        7: "exit status 9",
    }
    assert len(found) == 8
    tries = Counter({piece: (tmp_path / str(piece)).read_text().count("tried") for piece in range(8)})
    assert max(tries.values()) == tries[3] == 2  # one that waits when its neighbour dies is tried alone, too


def test_what_dies_once_is_done_when_tried_alone(tmp_path: Path) -> None:
    with processes_here(2) as pool:
        found = list(results(pool, kill_neighbours_once, died, [(piece, tmp_path) for piece in range(3)]))
    assert sorted(found) == [(0, "done"), (1, "done"), (2, "done")]


@pytest.mark.parametrize("before", [(), (3,)])
def test_what_work_raises_is_raised(tmp_path: Path, before: tuple[int, ...]) -> None:
    """In a process of the pool, and in one of its own."""
    with pytest.raises(OSError, match="No space left"), processes_here(2) as pool:
        list(results(pool, work, died, [(piece, tmp_path) for piece in (*before, 8)]))


def test_no_more_is_handed_out_than_asked_for(tmp_path: Path) -> None:
    handed_out = []

    def arguments() -> object:
        for piece in (0, 1, 2, 4, 6, 9, 10, 11, 12):
            handed_out.append(piece)
            yield piece, tmp_path

    with processes_here(1) as pool:
        assert pool.at_once == 2
        for number, _ in enumerate(results(pool, work, died, arguments()), start=1):  # type: ignore[arg-type]
            assert len(handed_out) <= number + 1
