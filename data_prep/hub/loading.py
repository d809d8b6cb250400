"""Pushed versions: which there are, checking their files against a SHA-256 manifest, and reading their rows.

`datasets` takes seconds to import, so it is imported where it is used: finding and checking a version needs none of it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.clips.audit import AUDIT_FILE, of_today
from data_prep.disk.disk_errors import named, told
from data_prep.disk.litter import is_litter
from data_prep.disk.plain_paths import plain_path
from data_prep.errors import InputError
from data_prep.files import sha256_of_file
from data_prep.hub.layout import (
    CONFIG,
    MANIFEST,
    PUSH_COMMAND,
    PUSHED_REF,
    Version,
    arrow_file,
    check_repo_id,
    parquet_name,
    push_again,
    refs,
    snapshots,
)
from data_prep.media.frame_format import FrameFormat
from data_prep.rows.content import split_hash

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def is_pushed(repo_id: str) -> bool:
    """Say whether the local Hub cache holds a version of `repo_id` that a push finished."""
    return (refs(repo_id) / PUSHED_REF).is_file()


def resolve_version(repo_id: str, revision: str | None) -> Version:
    """Return the latest pushed version, or the one that `revision` is or begins.

    Raises InputError for an id that was not pushed, and for a revision that begins none or several of its versions.
    """
    if not is_pushed(repo_id):
        raise InputError(
            f"{repo_id!r} was not pushed to the local Hub cache, and a data set is never fetched from the Hub; "
            f"run {PUSH_COMMAND} --repo-id {repo_id} first"
        )
    latest = (refs(repo_id) / PUSHED_REF).read_text().strip()
    if revision in (None, latest):
        return Version(repo_id, latest)
    pushed = _revisions(repo_id)
    matches = [each for each in pushed if revision and each.startswith(revision)]
    if len(matches) != 1:
        found = "begins several versions" if matches else "is no version"
        raise InputError(f"revision {revision!r} {found} of {repo_id}; pushed: {', '.join(pushed)}")
    return Version(repo_id, matches[0])


def _revisions(repo_id: str) -> list[str]:
    return sorted(path.parent.name for path in snapshots(repo_id).glob(f"*/{MANIFEST}"))


def read_manifest(version: Version) -> dict[str, Any]:
    """Return a version's manifest. Raises InputError where it isn't the one that the version's id follows from."""
    path = version.snapshot / MANIFEST
    if not path.is_file() or revision_of(path) != version.revision:
        raise InputError(f"{path}: missing or changed since the push; {push_again(version.repo_id)}")
    manifest: dict[str, Any] = json.loads(path.read_bytes())
    return manifest


def revision_of(manifest: Path) -> str:
    """Return the id of the version that a manifest describes: it follows from the file's bytes."""
    return sha256_of_file(manifest)[:40]


def pushed_audit(version: Version) -> dict[str, Any] | None:
    """Return the audit that was pushed with a version, None where none was."""
    file = version.snapshot / AUDIT_FILE
    return of_today(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def pushed_format(manifest: dict[str, Any]) -> FrameFormat | None:
    """Return how the frames of a pushed version were kept, None where they differ in it or 9264ce6 pushed them."""
    frames = manifest.get("frames")
    return FrameFormat(**frames) if frames else None


def check_sizes(version: Version) -> dict[str, Any]:
    """Return a version's manifest, checked against its id, after checking the files' names and sizes against it.

    Raises InputError, naming the file, where one is missing, of another size, or was not pushed.
    """
    manifest, snapshot = read_manifest(version), version.snapshot
    for name, file in manifest["files"].items():
        path = snapshot / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise InputError(f"{path}: missing, or not the size that was pushed; {push_again(version.repo_id)}")
    present = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if not path.is_dir()}
    strays = sorted(present - set(manifest["files"]) - {MANIFEST})
    if strays := [stray for stray in strays if not any(map(is_litter, Path(stray).parts))]:
        raise InputError(f"{snapshot / strays[0]}: was not pushed; delete it")
    return manifest


def check_files(version: Version) -> dict[str, Any]:
    """Check every byte of a snapshot: the manifest against the version's id, each file against the manifest."""
    manifest = check_sizes(version)
    for name, file in manifest["files"].items():
        path = version.snapshot / name
        if sha256_of_file(path) != file["sha256"]:
            raise InputError(f"{path}: changed since the push; {push_again(version.repo_id)}")
    return manifest


def load_pushed(repo_id: str, revision: str | None = None) -> "DatasetDict":
    """Load the latest pushed version of `repo_id`, or the one that `revision` is or begins; the Hub is never asked.

    Every file is checked first: the manifest against the version's id, the snapshot's files against the manifest, the
    Arrow copy row by row. Raises InputError, naming the file, where one differs, and for an id or version that was not
    pushed.
    """
    check_repo_id(repo_id)
    version = resolve_version(repo_id, revision)
    manifest = check_files(version)
    folder = version.served
    if not folder.is_dir():
        folder = version.kept
        write_arrow(version, list(manifest["splits"]), folder)  # does nothing where it stands
    return read_arrow(folder, repo_id, manifest)


def write_arrow(version: Version, splits: list[str], folder: Path) -> None:
    """Write the Arrow files and dataset_info.json that `datasets` would make of a version's snapshot into `folder`."""
    from datasets.packaged_modules.parquet.parquet import Parquet

    blobs = {split: (version.snapshot / parquet_name(split)).resolve() for split in splits}
    # Not load_dataset_builder: it reports the load to the Hub, and names the files after the folder.
    builder = Parquet(
        cache_dir=str(folder.parent),
        dataset_name=version.repo_id.split("/")[1],
        config_name=CONFIG,
        hash=version.revision,
        data_files={split: str(plain_path(blob.parent) / blob.name) for split, blob in blobs.items()},
    )
    with named(folder, sum(path.stat().st_size for path in blobs.values())):
        builder.download_and_prepare(output_dir=str(folder), max_shard_size="1PB")


def read_arrow(folder: Path, repo_id: str, manifest: dict[str, Any]) -> "DatasetDict":
    """Map the Arrow files of a version into memory and check each against the manifest's hash of its rows.

    Raises InputError, naming the file, where one differs.
    """
    from datasets import DatasetDict

    splits = {
        split: _read_arrow_split(arrow_file(folder, repo_id, split), split, entry["content_hash"], repo_id)
        for split, entry in manifest["splits"].items()
    }
    return DatasetDict(splits)


def _read_arrow_split(path: Path, split: str, expected: str, repo_id: str) -> "Dataset":
    import pyarrow
    from datasets import Dataset, NamedSplit

    try:
        dataset = Dataset.from_file(str(path), split=NamedSplit(split))
        dataset.data.validate(full=True)  # an offset that points outside its buffer would crash the reader
        found = split_hash(dataset)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if path.exists() and told(error):
            raise
        found = ""
    if found != expected:
        raise InputError(
            f"{path}: missing, or not the rows that were pushed; delete its folder, or {push_again(repo_id)}"
        )
    return dataset
