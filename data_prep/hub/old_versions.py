"""Older versions of a pushed data set: what they take on the disk, and removing those that no run was trained on."""

import json
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from data_prep.hub.layout import MANIFEST, Version, snapshots
from data_prep.hub.loading import resolve_version
from data_prep.hub.staging import push_lock


@dataclass(frozen=True)
class Pruned:
    """Which older versions of a data set go, which stay because a run was trained on them, and the bytes that frees."""

    gone: list[Version]
    kept: list[Version]
    freed: int


def hashes_of_runs(folder: Path) -> set[str]:
    """Return the content hashes of the data sets that the runs anywhere below `folder` were trained on.

    Files that are no run's, or damaged ones, are passed over.
    """
    hashes = set()
    for name in ("run.json", "safety.json"):
        for file in folder.rglob(name):
            try:
                hashes.add(json.loads(file.read_bytes())["dataset_hash"])
            except (ValueError, KeyError, TypeError):
                continue
    return hashes


def find_prunable(repo_id: str, in_use: Collection[str]) -> Pruned:
    """Return what prune would remove; `in_use` are content hashes of versions to keep. Nothing is changed."""
    latest = resolve_version(repo_id, None)
    older = [version for version in _pushed(repo_id) if version != latest]
    kept = [version for version in older if _content_hash(version) in in_use]
    gone = [version for version in older if version not in kept]
    files = [*_files_alone(repo_id, gone), *(file for folder in _copies(repo_id, gone) for file in folder.rglob("*"))]
    return Pruned(gone, kept, sum(file.lstat().st_size for file in files if file.is_file()))


def prune(repo_id: str, in_use: Collection[str]) -> Pruned:
    """Remove the older versions of `repo_id` but those of the content hashes `in_use`, and say what that freed.

    Versions of other ids, and what a library downloaded under this one, are left alone; so is a file that a version
    which stays refers to, too. Whoever has a version open reads on. What a killed call leaves, the next one removes.
    """
    with push_lock(repo_id):
        found = find_prunable(repo_id, in_use)
        for folder in _copies(repo_id, found.gone):
            shutil.rmtree(folder)
        for file in _files_alone(repo_id, found.gone):
            file.unlink(missing_ok=True)
        for version in found.gone:
            shutil.rmtree(version.snapshot)
    return found


def _pushed(repo_id: str) -> list[Version]:
    """Return the versions that pushes left, those included of which a killed call removed the files already."""
    found = [Version(repo_id, folder.name) for folder in sorted(snapshots(repo_id).iterdir())]
    return [version for version in found if os.path.lexists(version.snapshot / MANIFEST)]


def _content_hash(version: Version) -> str | None:
    """Return the content hash of a version, None where it is damaged.

    Raises OSError where its manifest can't be read: a run may have been trained on it.
    """
    try:
        return str(json.loads((version.snapshot / MANIFEST).read_bytes())["content_hash"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _files_alone(repo_id: str, gone: Iterable[Version]) -> set[Path]:
    """Return the files behind these versions that no other snapshot in the data set's folder refers to."""
    files_by_snapshot = {folder: _files_of(folder) for folder in snapshots(repo_id).iterdir()}
    leaving = {version.snapshot for version in gone}
    used = {file for folder, files in files_by_snapshot.items() if folder not in leaving for file in files}
    return {file for folder in leaving for file in files_by_snapshot[folder]} - used


def _files_of(snapshot: Path) -> set[Path]:
    """Return the files of a snapshot, those that its links lead to."""
    return {path.resolve() for path in snapshot.rglob("*") if path.is_file()}


def _copies(repo_id: str, gone: Iterable[Version]) -> list[Path]:
    """Return the folders with Arrow copies of these versions, and of the latest as long as it was an older one."""
    folders = (version.kept for version in (*gone, resolve_version(repo_id, None)))
    return [folder for folder in folders if folder.is_dir()]
