"""Push a data set to the local Hub cache and load it from there, checked against a SHA-256 manifest.

A push fills both layouts that the libraries know. The Hub cache gets a snapshot (Parquet, a card, the manifest), which
is the truth and keeps every version; the cache of `datasets` gets an Arrow copy of the newest version alone, because
`load_dataset("org/name")` reads nothing else while offline and there takes whatever was touched last.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock

from data_prep.clips.audit import AUDIT_FILE, with_groups
from data_prep.disk.disk_errors import named, told
from data_prep.disk.litter import is_litter
from data_prep.disk.parquet_files import write_parquet
from data_prep.disk.plain_paths import plain_path
from data_prep.errors import InputError
from data_prep.files import UNSUPPORTED, if_supported, replace, sha256_of_file, write_atomic, write_json
from data_prep.labels import SAFE, UNSAFE
from data_prep.media.frame_format import FrameFormat
from data_prep.rows.content import SplitCounts, combine_split_hashes, count_splits, split_hash

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

CONFIG = "default"
DATASETS_VERSION = "0.0.0"  # what `datasets` calls the version of every data set without a loading script
MANIFEST = "manifest.json"
SCHEMA_VERSION = 2
# A ref of our own beside refs/main: where the Hub has a data set of the same name, the libraries move main to it.
PUSHED_REF = "pushed"
STAGING = ".pushing"  # hidden, so that the libraries' globs pass it over

PUSH_COMMAND = "python data_prep/push_dataset.py"
_PART = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"


def is_repo_id(name: str) -> bool:
    """Say whether `name` has the form of an id that can be pushed: `org/name`."""
    return bool(re.fullmatch(f"{_PART}/{_PART}", name))


def check_repo_id(repo_id: str) -> None:
    """Raise InputError unless `repo_id` names the same data set for the Hub cache, for `datasets` and for people."""
    if not is_repo_id(repo_id) or len(repo_id) > 96:
        raise InputError(
            f"repo id {repo_id!r} is not of the form org/name in lower-case letters, digits and single . _ - between "
            "them (at most 96 characters; datasets stores upper case under another name)"
        )
    if repo_id.startswith("buckets/") or repo_id.endswith((".py", ".git")):
        raise InputError(f"repo id {repo_id!r} means something else to the libraries; choose another name")


def hub_folder(repo_id: str) -> Path:
    """Return where the Hub cache keeps what was pushed, or downloaded, under an id."""
    return Path(constants.HF_HUB_CACHE) / "--".join(["datasets", *repo_id.split("/")])


def arrow_root(repo_id: str) -> Path:
    """Return where `datasets` keeps Arrow files of an id."""
    from datasets import config

    return plain_path(Path(config.HF_DATASETS_CACHE).expanduser()) / "___".join(repo_id.split("/"))


def _served_folder(repo_id: str, revision: str) -> Path:
    """Return where `load_dataset` finds a version's Arrow files while offline."""
    return arrow_root(repo_id) / CONFIG / DATASETS_VERSION / revision


def kept_folder(repo_id: str, revision: str) -> Path:
    """Return where the Arrow files of an older version stand, once it was asked for; hidden from `load_dataset`."""
    return arrow_root(repo_id) / ".versions" / revision


def _parquet_name(split: str) -> str:
    return f"data/{split}-00000-of-00001.parquet"


def _arrow_file(folder: Path, repo_id: str, split: str) -> Path:
    return folder / f"{repo_id.split('/')[1]}-{split}.arrow"


_CARD = """\
---
pretty_name: CCTV frames, SAFE or UNSAFE
{configs}---

# CCTV frames, SAFE or UNSAFE

One row is one frame of a clip from a fixed camera in a workplace, with the question put to a vision-language model and
its one-word answer. Validation is cut from train by clip: clips of the same content never part.

| split | frames | clips | SAFE | UNSAFE |
|---|---:|---:|---:|---:|
{rows}

Columns: `image` (the file's bytes, embedded), `prompt`, `response`, `clip`, `sample` (number k is the first frame shown
from k to k + 1 over fps seconds of the clip; one in which none is shown is missing), `source_class` (the behaviour's
folder in the published data set).

Content hash: `{content}`

## Source, licence and privacy

Frames of the published clips come from "Video Dataset for Safe and Unsafe Behaviours" by Önal and Dandıl, Mendeley
Data, doi [10.17632/xjmtb22pff.1](https://doi.org/10.17632/xjmtb22pff.1), licensed
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/). Changes made: frames were sampled from the clips and saved
as images, and the eight behaviours were collapsed to SAFE and UNSAFE.
**Workers are identifiable in them: keep this data set private.**

Frames of clips that this project's `make_demo_clips.py` drew show nobody and come from no camera.
"""


def dataset_card(content: str, counts: dict[str, SplitCounts], *, with_files: bool) -> str:
    """Return the data set's README.md: what it holds, where it comes from, licence and privacy.

    `with_files` says in its head which Parquet file is which split; the library's own push writes that by itself.
    """
    files = "".join(f"  - split: {split}\n    path: {_parquet_name(split)}\n" for split in counts)
    configs = f"configs:\n- config_name: {CONFIG}\n  data_files:\n{files}" if with_files else ""
    rows = [
        f"| {split} | {c.frames} | {c.clips} | {c.labels[SAFE]} | {c.labels[UNSAFE]} |" for split, c in counts.items()
    ]
    return _CARD.format(configs=configs, rows="\n".join(rows), content=content)


def is_own_card(card: str) -> bool:
    """Say whether a data set's README.md is dataset_card's, whatever a push made of its head."""
    return "\n# CCTV frames, SAFE or UNSAFE\n" in card and "\nContent hash: `" in card


def _write_snapshot(
    dataset: "DatasetDict", audit: dict[str, Any] | None, frames: FrameFormat | None, folder: Path
) -> str:
    """Write Parquet files, card, audit and manifest into `folder` and return the version id that follows from them."""
    (folder / "data").mkdir(parents=True)
    for split in dataset:
        write_parquet(dataset[split], folder / _parquet_name(split))
    hashes = {split: split_hash(dataset[split]) for split in dataset}
    counts = count_splits(dataset)
    content = combine_split_hashes(hashes)
    write_atomic(folder / "README.md", dataset_card(content, counts, with_files=True).encode())
    names = ["README.md", *map(_parquet_name, dataset)]
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
    return _version_of(folder / MANIFEST)


def _version_of(manifest: Path) -> str:
    return sha256_of_file(manifest)[:40]


def _write_arrow(snapshot: Path, repo_id: str, revision: str, splits: list[str], folder: Path) -> None:
    """Write the Arrow files and dataset_info.json that `datasets` would make of a snapshot into `folder`."""
    from datasets.packaged_modules.parquet.parquet import Parquet

    blobs = {split: (snapshot / _parquet_name(split)).resolve() for split in splits}
    # Not load_dataset_builder: it reports the load to the Hub, and names the files after the folder.
    builder = Parquet(
        cache_dir=str(folder.parent),
        dataset_name=repo_id.split("/")[1],
        config_name=CONFIG,
        hash=revision,
        data_files={split: str(plain_path(blob.parent) / blob.name) for split, blob in blobs.items()},
    )
    with named(folder, sum(path.stat().st_size for path in blobs.values())):
        builder.download_and_prepare(output_dir=str(folder), max_shard_size="1PB")


def _install_snapshot(staged: Path, repo_id: str, revision: str) -> None:
    """Move a staged snapshot's files to blobs/ and a tree of links to snapshots/, as huggingface_hub lays them out.

    On a file system without links, as FAT and most of SMB, snapshots/ holds the files themselves, as its does.
    """
    hub = hub_folder(repo_id)
    tree = staged.parent / "links"
    (hub / "blobs").mkdir(exist_ok=True)
    (hub / "snapshots").mkdir(exist_ok=True)
    for file in sorted(path for path in staged.rglob("*") if path.is_file()):
        name = file.relative_to(staged)
        blob = hub / "blobs" / sha256_of_file(file)
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            (tree / name).symlink_to(Path(*[".."] * (len(name.parts) + 1), "blobs", blob.name))
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            file.replace(tree / name)
        else:
            replace(file, blob)
    _swap_in(tree, hub / "snapshots" / revision)


def _swap_in(staged: Path, final: Path) -> None:
    """Rename `staged` to `final`; what stood there goes to the staging folder, which the push removes at its end."""
    if final.exists():
        final.rename(staged.with_name(f"{staged.name}.replaced"))
    final.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(final)


def _install_arrow(staged: Path, repo_id: str, revision: str) -> None:
    """Put the Arrow files where `load_dataset` looks, dated 1970, so that a version already there still wins."""
    with if_supported():
        os.utime(staged, (0, 0))
    _swap_in(staged, _served_folder(repo_id, revision))


def _switch(repo_id: str, revision: str, hub_staging: Path, arrow_staging: Path) -> None:
    """Make `revision` the version that both layouts give."""
    refs = hub_folder(repo_id) / "refs"
    refs.mkdir(exist_ok=True)
    for name in ("main", PUSHED_REF):
        write_atomic(hub_staging / name, revision.encode())
        replace(hub_staging / name, refs / name)
    with if_supported():  # without times, that it is the only version there will do
        os.utime(_served_folder(repo_id, revision))
    # A cache file written into an older version's folder would make it the newest again, so it may not stay.
    for number, folder in enumerate(sorted(arrow_root(repo_id).glob("[!.]*/*/*"))):
        is_another = folder.is_dir() and folder != _served_folder(repo_id, revision)
        if is_another and not any(map(is_litter, folder.relative_to(arrow_root(repo_id)).parts)):
            folder.rename(arrow_staging / f"retired-{number}")


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
def _staging_folders(repo_id: str) -> Iterator[tuple[Path, Path]]:
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
    with _staging_folders(repo_id) as (hub_staging, arrow_staging):
        staged = hub_staging / "snapshot"
        revision = _write_snapshot(dataset, audit, frames, staged)
        if not _is_sound(repo_id, revision):
            _install_snapshot(staged, repo_id, revision)
        snapshot = hub_folder(repo_id) / "snapshots" / revision
        if not _is_served(repo_id, revision):
            _write_arrow(snapshot, repo_id, revision, list(dataset), arrow_staging / "arrow")
            _install_arrow(arrow_staging / "arrow", repo_id, revision)
        _switch(repo_id, revision, hub_staging, arrow_staging)
    return revision


def _is_sound(repo_id: str, revision: str) -> bool:
    try:
        _check_files(repo_id, revision)
    except InputError:
        return False
    return True


def _is_served(repo_id: str, revision: str) -> bool:
    folder = _served_folder(repo_id, revision)
    try:
        _read_arrow(folder, repo_id, read_manifest(repo_id, revision))
    except InputError:
        return False
    return (folder / "dataset_info.json").is_file()


def _versions(repo_id: str) -> list[str]:
    return sorted(path.parent.name for path in (hub_folder(repo_id) / "snapshots").glob(f"*/{MANIFEST}"))


def is_pushed(repo_id: str) -> bool:
    """Say whether the local Hub cache holds a version of `repo_id` that a push finished."""
    return (hub_folder(repo_id) / "refs" / PUSHED_REF).is_file()


def resolve_version(repo_id: str, revision: str | None) -> str:
    """Return the full id of the latest pushed version, or of the one that `revision` is or begins.

    Raises InputError for an id that was not pushed, and for a revision that begins none or several of its versions.
    """
    if not is_pushed(repo_id):
        raise InputError(
            f"{repo_id!r} was not pushed to the local Hub cache, and a data set is never fetched from the Hub; "
            f"run {PUSH_COMMAND} --repo-id {repo_id} first"
        )
    latest = (hub_folder(repo_id) / "refs" / PUSHED_REF).read_text().strip()
    if revision in (None, latest):
        return latest
    versions = _versions(repo_id)
    matches = [version for version in versions if revision and version.startswith(revision)]
    if len(matches) != 1:
        found = "begins several versions" if matches else "is no version"
        raise InputError(f"revision {revision!r} {found} of {repo_id}; pushed: {', '.join(versions)}")
    return matches[0]


def read_manifest(repo_id: str, revision: str) -> dict[str, Any]:
    """Return a version's manifest. Raises InputError where it isn't the one that the version's id follows from."""
    path = hub_folder(repo_id) / "snapshots" / revision / MANIFEST
    if not path.is_file() or _version_of(path) != revision:
        raise InputError(f"{path}: missing or changed since the push; {_advice(repo_id)}")
    manifest: dict[str, Any] = json.loads(path.read_bytes())
    return manifest


def pushed_audit(repo_id: str, revision: str) -> dict[str, Any] | None:
    """Return the audit that was pushed with a version, None where none was."""
    file = hub_folder(repo_id) / "snapshots" / revision / AUDIT_FILE
    return with_groups(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def pushed_format(manifest: dict[str, Any]) -> FrameFormat | None:
    """Return how the frames of a pushed version were kept, None where they differ in it or 9264ce6 pushed them."""
    frames = manifest.get("frames")
    return FrameFormat(**frames) if frames else None


def _advice(repo_id: str) -> str:
    return f"push the data again: {PUSH_COMMAND} --repo-id {repo_id}"


def check_sizes(repo_id: str, revision: str) -> dict[str, Any]:
    """Return a version's manifest, checked against its id, after checking the files' names and sizes against it.

    Raises InputError, naming the file, where one is missing, of another size, or was not pushed.
    """
    manifest = read_manifest(repo_id, revision)
    snapshot = hub_folder(repo_id) / "snapshots" / revision
    for name, file in manifest["files"].items():
        path = snapshot / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise InputError(f"{path}: missing, or not the size that was pushed; {_advice(repo_id)}")
    present = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if not path.is_dir()}
    strays = sorted(present - set(manifest["files"]) - {MANIFEST})
    if strays := [stray for stray in strays if not any(map(is_litter, Path(stray).parts))]:
        raise InputError(f"{snapshot / strays[0]}: was not pushed; delete it")
    return manifest


def _check_files(repo_id: str, revision: str) -> dict[str, Any]:
    """Check every byte of a snapshot: the manifest against the version's id, each file against the manifest."""
    manifest = check_sizes(repo_id, revision)
    for name, file in manifest["files"].items():
        path = hub_folder(repo_id) / "snapshots" / revision / name
        if sha256_of_file(path) != file["sha256"]:
            raise InputError(f"{path}: changed since the push; {_advice(repo_id)}")
    return manifest


def _read_arrow(folder: Path, repo_id: str, manifest: dict[str, Any]) -> "DatasetDict":
    """Map the Arrow files of a version into memory and check each against the manifest's hash of its rows."""
    from datasets import DatasetDict

    splits = {
        split: _read_arrow_split(_arrow_file(folder, repo_id, split), split, entry["content_hash"], repo_id)
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
        raise InputError(f"{path}: missing, or not the rows that were pushed; delete its folder, or {_advice(repo_id)}")
    return dataset


def load_pushed(repo_id: str, revision: str | None = None) -> "DatasetDict":
    """Load the latest pushed version of `repo_id`, or the one that `revision` is or begins; the Hub is never asked.

    Every file is checked first: the manifest against the version's id, the snapshot's files against the manifest, the
    Arrow copy row by row. Raises InputError, naming the file, where one differs, and for an id or version that was not
    pushed.
    """
    check_repo_id(repo_id)
    revision = resolve_version(repo_id, revision)
    manifest = _check_files(repo_id, revision)
    folder = _served_folder(repo_id, revision)
    if not folder.is_dir():
        folder = kept_folder(repo_id, revision)
        snapshot = hub_folder(repo_id) / "snapshots" / revision
        _write_arrow(snapshot, repo_id, revision, list(manifest["splits"]), folder)  # does nothing where it stands
    return _read_arrow(folder, repo_id, manifest)
