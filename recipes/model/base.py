"""Where a base model's files lie, and which base exactly it is. Imports neither torch nor transformers."""

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import httpx

from data_prep.disk.disk_errors import told
from data_prep.errors import InputError
from data_prep.files import from_root, to_root
from recipes.layers.sizes import quantization
from recipes.model.base_files import (
    CONFIG_FILE,
    INDEX_FILE,
    check_config,
    check_packed,
    check_weights,
    read_config,
    read_index,
)

# A folder's own, which may be written anew around the same weights: their fingerprint, and its revisions before.
EARLIER_FILE = "earlier_revisions.json"
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAMPLED_BLOCKS = 64
_BLOCK_BYTES = 65_536


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk.

    `name` is a Hub id, or a folder: `./…` from the project's root, absolute outside it. `revision` is the Hub's
    commit, or the fingerprint of a local folder's content; `same_weights` are those of earlier writings of a folder,
    with other companions to the very weights. `folder` is where the files lie on this machine.
    """

    name: str
    revision: str
    folder: Path
    same_weights: tuple[str, ...] = ()

    def is_at(self, revision: str | None) -> bool:
        """Say whether it has the weights of a revision."""
        return revision == self.revision or revision in self.same_weights

    def read_config(self) -> dict[str, Any]:
        """Return its config.json. Raises InputError where that is missing or damaged."""
        return read_config(self.name, self.folder)


def find_base(name: str, revision: str | None = None, *, download: bool = True) -> BaseModel:
    """Find a base model: a folder of this project or machine, else a Hub id, downloaded unless it is in the cache.

    What the cache has of a revision is taken without asking the Hub, of a branch, too, which a line on stderr says.
    Without `download` only what lies on this machine counts. Of a base that isn't used here, nothing but config.json
    is downloaded; of one in 4 bits, the index before the weights.

    Raises InputError where it is neither, where it can't be had offline, where it is no Qwen2-VL or quantized in a way
    that isn't used here, or where weight files are missing, truncated or another model's.
    """
    folder = from_root(name)
    if folder.is_dir():
        name = _folder_name(folder)
        _check_files(name, folder)
        return BaseModel(name, fingerprint(folder), folder, _same_weights(folder))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(f"base model {name!r}: no such folder, and not a Hub id of the form owner/name")
    folder = _download(name, revision, local_files_only=not download)
    _check_files(name, folder)
    return BaseModel(name, folder.name, folder)


def find_config(name: str, revision: str | None = None) -> dict[str, Any] | None:
    """Return a base's config.json, of a folder or the Hub cache, whatever else of it is there; None where it isn't.

    Raises InputError where it is damaged, or no Qwen2-VL's.
    """
    folder: Path | None = from_root(name)
    if not (folder and folder.is_dir()):
        folder = _cached(name, revision)
    if folder is None:
        return None
    config = read_config(name, folder)
    check_config(name, config)
    return config


def _folder_name(folder: Path) -> str:
    """Name a folder so that it can't be taken for a Hub id, whose owner would otherwise be asked once it is gone."""
    name = to_root(folder)
    return name if name.startswith("/") else f"./{name}"


def _download(name: str, revision: str | None, *, local_files_only: bool) -> Path:
    """Return a Hub model's folder in the cache, which comes first: the Hub is asked for what isn't there alone."""
    cached = _cached(name, revision)
    offline = local_files_only or constants.HF_HUB_OFFLINE
    if cached and (offline or _is_whole(name, cached)):
        if not (offline or _COMMIT.fullmatch(revision or "")):
            _say_cached(name, revision, cached)
        return cached
    try:
        if offline:
            raise OfflineModeIsEnabled
        commit = _look_before_downloading(name, revision)
        return Path(snapshot_download(name, revision=commit, allow_patterns=_FILES))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError):
        if cached:
            return cached  # whoever looks at it will name what it lacks
        unreached = "" if local_files_only else " and the Hub can't be reached"
        raise InputError(
            f"base model {name!r} is not in the Hub cache{unreached}; where there is a network, run "
            f"'hf download {name}' with the same HF_HOME, then carry the cache over"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        if told(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"base model {name!r} at revision {revision or 'main'}: {reason}") from None


def _cached(name: str, revision: str | None) -> Path | None:
    """Return the snapshot that the cache has of a revision, however much of it, without asking the Hub."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _is_whole(name: str, folder: Path) -> bool:
    try:
        _check_files(name, folder)
    except InputError:
        return False
    return True


def _say_cached(name: str, revision: str | None, folder: Path) -> None:
    of = f" of {revision}" if revision else ""
    pin = f" --revision {revision}" if revision not in (None, "main") else ""
    print(
        f"base model {name}: revision {folder.name[:12]}{of} as it is in the Hub cache; a newer one, if there is one, "
        f"comes with 'hf download {name}{pin}'",
        file=sys.stderr,
    )


def _look_before_downloading(name: str, revision: str | None) -> str:
    """Fetch config.json, and the index of a base in 4 bits, and check them; return the commit that they are of.

    The library waits for ever for a Hub that takes a connection and doesn't answer, so it is asked within seconds once.
    """
    HfApi().model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    folder = Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG_FILE]))
    config = read_config(name, folder)
    check_config(name, config)
    if quantization(config) is not None:
        snapshot_download(name, revision=folder.name, allow_patterns=[INDEX_FILE])
        if (folder / INDEX_FILE).is_file():  # else there is one file, whose header is read once it is here
            check_packed(name, read_index(folder / INDEX_FILE), config)
    return folder.name


def _check_files(name: str, folder: Path) -> None:
    config = read_config(name, folder)
    check_config(name, config)
    check_weights(name, folder, config)


def _same_weights(folder: Path) -> tuple[str, ...]:
    """Return the earlier revisions of a folder with the weights that it has. Raises InputError for a damaged list."""
    file = folder / EARLIER_FILE
    if not file.is_file():
        return ()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        weights, revisions = found["weights"], tuple(found["revisions"])
        plain = all(_COMMIT.fullmatch(revision) for revision in (weights, *revisions))
    except (ValueError, TypeError, KeyError):
        plain = False
    if not plain:
        raise InputError(f"{file}: not a fingerprint and a list of revisions; restore it or remove it")
    return revisions if fingerprint(folder, ("*.safetensors",)) == weights else ()


_OF_A_BASE = ("*.json", "*.safetensors")
OF_AN_EXPORT = (*_OF_A_BASE, "*.jinja", "*.txt")


def fingerprint(folder: Path, patterns: tuple[str, ...] = _OF_A_BASE, *, without: str | None = None) -> str:
    """Hash a local model folder: of each weight file its size, both ends and sampled blocks, any other file whole.

    Files of other patterns are left out, and so is one named `without`.

    Reading 16 GB whole would take minutes from a laptop's disk; different weights differ nearly everywhere, so 64
    blocks spread over each file tell them apart.
    """
    digest = hashlib.sha256()
    for file in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        if file.name == without:
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            if file.suffix != ".safetensors" or size <= _SAMPLED_BLOCKS * _BLOCK_BYTES:
                digest.update(content.read())
                continue
            for block in range(_SAMPLED_BLOCKS):
                content.seek((size - _BLOCK_BYTES) * block // (_SAMPLED_BLOCKS - 1))
                digest.update(content.read(_BLOCK_BYTES))
    return digest.hexdigest()[:40]
