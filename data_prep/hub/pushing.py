"""Pushing a data set to the local Hub cache, so that whatever stops it, the version before stays whole."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.clips.audit import AUDIT_FILE
from data_prep.disk.litter import is_litter
from data_prep.disk.parquet_files import write_parquet
from data_prep.errors import InputError
from data_prep.files import UNSUPPORTED, if_supported, replace, sha256_of_file, write_atomic, write_json
from data_prep.hub.card import dataset_card
from data_prep.hub.layout import (
    CARD_FILE,
    MANIFEST,
    PUSHED_REF,
    Version,
    arrow_root,
    check_repo_id,
    hub_folder,
    parquet_name,
    refs,
)
from data_prep.hub.loading import check_files, read_arrow, read_manifest, revision_of, write_arrow
from data_prep.hub.staging import staging_folders
from data_prep.media.frame_format import FrameFormat
from data_prep.rows.content import combine_split_hashes, count_splits, split_hash

if TYPE_CHECKING:
    from datasets import DatasetDict

SCHEMA_VERSION = 2


def push_local(
    dataset: "DatasetDict",
    repo_id: str,
    audit: dict[str, Any] | None = None,
    frames: FrameFormat | None = None,
) -> str:
    """Push a data set to the local Hub cache and return its version, 40 hexadecimal digits that follow from its data.

    The audit of its clips, and how their frames were kept, go along where they are known.

    Pushing the same data again gives the same version, made whole where it was damaged. Killed at any moment, a push
    leaves the version before it loadable. Raises InputError for an id that would not round-trip.
    """
    check_repo_id(repo_id)
    with staging_folders(repo_id) as (hub_staging, arrow_staging):
        staged = hub_staging / "snapshot"
        version = Version(repo_id, _write_snapshot(dataset, audit, frames, staged))
        if not _is_sound(version):
            _install_snapshot(staged, version)
        if not _is_served(version):
            staged = arrow_staging / "arrow"
            write_arrow(version, list(dataset), staged)
            _install_arrow(staged, version)
        _switch(version, hub_staging, arrow_staging)
    return version.revision


def _write_snapshot(
    dataset: "DatasetDict", audit: dict[str, Any] | None, frames: FrameFormat | None, folder: Path
) -> str:
    """Write Parquet files, card, audit and manifest into `folder` and return the version id that follows from them."""
    (folder / "data").mkdir(parents=True)
    for split in dataset:
        write_parquet(dataset[split], folder / parquet_name(split))
    hashes = {split: split_hash(dataset[split]) for split in dataset}
    counts = count_splits(dataset)
    content = combine_split_hashes(hashes)
    write_atomic(folder / CARD_FILE, dataset_card(content, counts, with_files=True).encode())
    names = [CARD_FILE, *map(parquet_name, dataset)]
    if audit:
        write_json(folder / AUDIT_FILE, audit)
        names.append(AUDIT_FILE)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "content_hash": content,
        "frames": asdict(frames) if frames else None,
        "splits": {split: {"content_hash": hashes[split], **asdict(counts[split])} for split in dataset},
        "files": {
            name: {"sha256": sha256_of_file(folder / name), "bytes": (folder / name).stat().st_size} for name in names
        },
    }
    write_json(folder / MANIFEST, manifest)
    return revision_of(folder / MANIFEST)


def _is_sound(version: Version) -> bool:
    try:
        check_files(version)
    except InputError:
        return False
    return True


def _is_served(version: Version) -> bool:
    try:
        read_arrow(version.served, version.repo_id, read_manifest(version))
    except InputError:
        return False
    return (version.served / "dataset_info.json").is_file()


def _install_snapshot(staged: Path, version: Version) -> None:
    """Move a staged snapshot's files to blobs/ and a tree of links to snapshots/, as huggingface_hub lays them out.

    On a file system without links, as FAT and most of SMB, snapshots/ holds the files themselves, as its does.
    """
    blobs = hub_folder(version.repo_id) / "blobs"
    tree = staged.parent / "links"
    blobs.mkdir(exist_ok=True)
    version.snapshot.parent.mkdir(exist_ok=True)
    for file in sorted(path for path in staged.rglob("*") if path.is_file()):
        name = file.relative_to(staged)
        blob = blobs / sha256_of_file(file)
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            (tree / name).symlink_to(Path(*[".."] * (len(name.parts) + 1), blobs.name, blob.name))
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            file.replace(tree / name)
        else:
            replace(file, blob)
    _swap_in(tree, version.snapshot)


def _install_arrow(staged: Path, version: Version) -> None:
    """Put the Arrow files where `load_dataset` looks, dated 1970, so that a version already there still wins."""
    with if_supported():
        os.utime(staged, (0, 0))
    _swap_in(staged, version.served)


def _swap_in(staged: Path, final: Path) -> None:
    """Rename `staged` to `final`; what stood there goes to the staging folder, which the push removes at its end."""
    if final.exists():
        final.rename(staged.with_name(f"{staged.name}.replaced"))
    final.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(final)


def _switch(version: Version, hub_staging: Path, arrow_staging: Path) -> None:
    """Make `version` the one that both layouts give."""
    folder = refs(version.repo_id)
    folder.mkdir(exist_ok=True)
    for name in ("main", PUSHED_REF):
        write_atomic(hub_staging / name, version.revision.encode())
        replace(hub_staging / name, folder / name)
    with if_supported():  # without times, that it is the only version there will do
        os.utime(version.served)
    # A cache file written into an older version's folder would make it the newest again, so it may not stay.
    root = arrow_root(version.repo_id)
    for number, copies in enumerate(sorted(root.glob("[!.]*/*/*"))):
        is_another = copies.is_dir() and copies != version.served
        if is_another and not any(map(is_litter, copies.relative_to(root).parts)):
            copies.rename(arrow_staging / f"retired-{number}")
