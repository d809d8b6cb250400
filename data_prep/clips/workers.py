"""Processes that work is shared out to, on this machine or in a Dask cluster, and that may die of a piece of work."""

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from data_prep.errors import InputError

DASK_TIMEOUT_SECONDS = 10
_IDLE_SECONDS = 300  # after which a process without work ends
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Pool:
    """Processes to work in, `at_once` pieces of work being handed out.

    `executor` gives the one to submit to, another one where processes of the last have died. `lost` is raised for work
    whose process died, and for what its death took along.
    """

    executor: Callable[[], Executor]
    at_once: int
    lost: tuple[type[Exception], ...] = (BrokenExecutor,)


@contextlib.contextmanager
def processes_here(count: int) -> Iterator[Pool]:
    """Give a pool of processes of this machine, never this one: a decoder that crashes must not take it down."""

    def executor() -> Any:
        return get_reusable_executor(max_workers=count, timeout=_IDLE_SECONDS, env=_ONE_THREAD)

    try:
        yield Pool(executor, at_once=2 * count)  # so that none waits for the next piece of work
    except BaseException:
        executor().shutdown(wait=True, kill_workers=True)
        raise


@contextlib.contextmanager
def processes_on_dask(address: str, count: int | None) -> Iterator[Pool]:
    """Give the workers of a Dask cluster that see the same folders under the same paths, `count` of them at most.

    Raises InputError where Dask isn't installed, and where no scheduler answers at the address or none has a worker.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise InputError(
            "--dask needs Dask; install it with: pip install -r requirements-dask.txt -c constraints.txt"
        ) from None
    try:
        client = Client(address, timeout=DASK_TIMEOUT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--dask {address}: no scheduler answers there ({error}); name the one you started") from None
    with client:
        threads = sum(client.ncores().values())
        if not threads:
            raise InputError(f"--dask {address}: its scheduler has no workers; start some, with: dask worker {address}")
        executor = client.get_executor()
        yield Pool(lambda: executor, at_once=count or 2 * threads, lost=(KilledWorker,))


def results(
    pool: Pool, work: Callable[..., Any], died: Callable[..., Any], arguments: Iterable[Arguments]
) -> Iterator[Any]:
    """Yield what `work` returns for each of the arguments, in the order in which the processes finish.

    Of a process that died it isn't known which of the pieces of work that were handed out it died of. Each of them is
    done again, alone in a process of its own, and where that dies, too, `died` is called in the place of `work`, with
    the same arguments and the reason. What `work` raises is raised.
    """
    waiting = iter(arguments)
    running: dict[Future[Any], Arguments] = {}
    while True:
        for each in islice(waiting, pool.at_once - len(running)):
            running[_submit(pool, work, each)] = each
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in [future for future in running if future in done]:
            each = running.pop(future)
            if isinstance(future.exception(), pool.lost):
                yield _alone(work, died, each)
            else:
                yield future.result()


def with_progress(finished: Iterable[Any], total: int, title: str) -> Iterator[Any]:
    """Yield results, one a clip, and show on a terminal how many of all have come."""
    yield from tqdm(finished, total=total, desc=title, unit="clip", file=sys.stderr, disable=not sys.stderr.isatty())


def _submit(pool: Pool, work: Callable[..., Any], arguments: Arguments) -> Future[Any]:
    try:
        return pool.executor().submit(work, *arguments)
    except BrokenExecutor as error:  # a process died just now
        lost: Future[Any] = Future()
        lost.set_exception(error)
        return lost


def _alone(work: Callable[..., Any], died: Callable[..., Any], arguments: Arguments) -> Any:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, work, arguments), daemon=True)
    process.start()
    sender.close()  # here, so that the process's end is the last
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        return died(*arguments, _cause(process.exitcode))
    finally:
        process.kill()
        process.join()
    if error is not None:
        raise error
    return result


def _send_result(sender: Connection, work: Callable[..., Any], arguments: Arguments) -> None:
    try:
        sender.send((work(*arguments), None))
    except Exception as error:
        sender.send((None, error))


def _cause(exitcode: int | None) -> str:
    """Say of what a process died: `exitcode` is negative where that was a signal."""
    if exitcode is None or exitcode >= 0:
        return f"exit status {exitcode}"
    name = next((each.name for each in signal.Signals if each == -exitcode), f"signal {-exitcode}")
    return f"{name}: out of memory?" if name == "SIGKILL" else name
