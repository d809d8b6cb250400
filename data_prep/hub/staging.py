"""The folders that a push works in, and the lock that it holds meanwhile."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock

from data_prep.disk.disk_errors import named
from data_prep.hub.layout import STAGING, arrow_root, hub_folder


@contextmanager
def push_lock(repo_id: str, name: str = "push") -> Iterator[None]:
    """Hold what one process at a time may do with the versions of an id; others wait."""
    lock = Path(constants.HF_HUB_CACHE) / ".locks" / hub_folder(repo_id).name / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with named(lock):
            stack.enter_context(WeakFileLock(lock))
        yield


@contextmanager
def _emptied(*folders: Path) -> Iterator[None]:
    """Have folders that are empty at first and gone at the end."""
    for folder in folders:
        if folder.exists():  # a killed push left it
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    try:
        yield
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staging_folders(repo_id: str) -> Iterator[tuple[Path, Path]]:
    """Hold the push lock and give an empty staging folder beside each of the two places a push writes to."""
    folders = hub_folder(repo_id) / STAGING, arrow_root(repo_id) / STAGING
    with push_lock(repo_id), _emptied(*folders):
        yield folders


@contextmanager
def building_folder(repo_id: str) -> Iterator[Path]:
    """Give a folder to build a data set in that is to be pushed, so that no copy of it is left in a cache."""
    from datasets import config

    folder = Path(config.HF_DATASETS_CACHE).expanduser() / ".building" / arrow_root(repo_id).name
    with push_lock(repo_id, "build"), _emptied(folder):
        yield folder
