"""Processes that die of their work; what is handed to them here lies in this module, for they import it."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from data_prep.clips import workers
from data_prep.clips.workers import Pool, processes_here, processes_on_dask, results
from data_prep.errors import InputError


def work(piece: int, folder: Path) -> tuple[int, str]:
    """Return the piece, or die of it as its number says; a line in `folder` tells of every try."""
    with (folder / str(piece)).open("a") as file:
        file.write("tried\n")
    if piece == 3:
        os.kill(os.getpid(), signal.SIGKILL)
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
        found = list(results(pool, work, died, [(piece, tmp_path) for piece in range(6)]))
    assert dict(found) == {**dict.fromkeys((0, 1, 2, 4, 5), "done"), 3: "SIGKILL: out of memory?"}
    assert len(found) == 6
    tries = Counter({piece: (tmp_path / str(piece)).read_text().count("tried") for piece in range(6)})
    assert max(tries.values()) == tries[3] == 2


@pytest.mark.parametrize(
    ("exitcode", "expected"),
    [(9, "exit status 9"), (-9, "SIGKILL: out of memory?"), (-11, "SIGSEGV"), (-40, "signal 40")],
)
def test_what_a_process_died_of(exitcode: int, expected: str) -> None:
    assert workers._cause(exitcode) == expected


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

    def arguments() -> Iterator[tuple[int, Path]]:
        for piece in (0, 1, 2, 4, 5, 6):
            handed_out.append(piece)
            yield piece, tmp_path

    with processes_here(1) as pool:
        assert pool.at_once == 2
        for number, _ in enumerate(results(pool, work, died, arguments()), start=1):
            assert len(handed_out) <= number + 1


class Lost(Exception):
    """What a cluster raises for work whose process died again and again."""


class Cluster(Executor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if args[0] in (2, 3):
            future.set_exception(Lost())
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_what_a_cluster_loses_is_tried_here(tmp_path: Path) -> None:
    pool = Pool(Cluster, at_once=3, lost=(Lost,))
    found = list(results(pool, work, died, [(piece, tmp_path) for piece in range(5)]))
    assert sorted(found) == [(0, "done"), (1, "done"), (2, "done"), (3, "SIGKILL: out of memory?"), (4, "done")]


def test_cluster_without_workers_is_one_line() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        pytest.raises(InputError, match="its scheduler has no workers"),
        processes_on_dask(cluster.scheduler_address, None),
    ):
        pass
