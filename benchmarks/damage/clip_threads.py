"""Clips taken in turn by as many threads as there are cores, each with watched processes of its own."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

from joblib import cpu_count

Reader = TypeVar("Reader")
Clip = TypeVar("Clip")
Found = TypeVar("Found")


def in_threads(
    clips: Iterable[Clip],
    open_reader: Callable[[Path], AbstractContextManager[Reader]],
    take: Callable[[Reader, Clip], Found],
) -> list[Found]:
    """Return what `take` makes of every clip, in order.

    Each thread takes its clips by a reader of its own, which `open_reader` opens with a folder that all share and that
    is removed at the end.
    """
    os.environ["SVT_LOG"] = "1"  # else the encoder greets on stderr
    of_thread = threading.local()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as readers:

        def begin() -> None:
            of_thread.reader = readers.enter_context(open_reader(Path(folder)))

        with ThreadPoolExecutor(cpu_count(), initializer=begin) as pool:
            return list(pool.map(lambda clip: take(of_thread.reader, clip), clips))
