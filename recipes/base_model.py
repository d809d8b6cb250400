"""Where a base model's files lie, and which base exactly it is. Imports neither torch nor transformers."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from data_prep.errors import InputError
from data_prep.files import from_root, to_root

MODEL_TYPE = "qwen2_vl"
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
_SAMPLED_BLOCKS = 64
_BLOCK_BYTES = 65_536


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk.

    `name` is a Hub id, or a folder: `./…` from the project's root, absolute outside it. `revision` is the Hub's
    commit, or the fingerprint of a local folder's content. `folder` is where the files lie on this machine.
    """

    name: str
    revision: str
    folder: Path


def find_base(name: str, revision: str | None = None, *, download: bool = True) -> BaseModel:
    """Find a base model: a folder of this project or machine, else a Hub id, downloaded unless it is in the cache.

    Without `download` only what lies on this machine counts.

    Raises InputError where it is neither, where it can't be had offline, where weight files are missing, or where it
    is no Qwen2-VL.
    """
    folder = from_root(name)
    if folder.is_dir():
        base = BaseModel(_folder_name(folder), _fingerprint(folder), folder)
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(f"base model {name!r}: no such folder, and not a Hub id of the form owner/name")
    else:
        folder = _download(name, revision, local_files_only=not download)
        base = BaseModel(name, folder.name, folder)
    _check_files(base)
    return base


def _folder_name(folder: Path) -> str:
    """Name a folder so that it can't be taken for a Hub id, whose owner would otherwise be asked once it is gone."""
    name = to_root(folder)
    return name if name.startswith("/") else f"./{name}"


def _download(name: str, revision: str | None, *, local_files_only: bool) -> Path:
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=_FILES, local_files_only=local_files_only)
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        unreached = "" if local_files_only else " and the Hub can't be reached"
        raise InputError(
            f"base model {name!r} is not in the Hub cache{unreached}; where there is a network, run "
            f"'hf download {name}' with the same HF_HOME, then carry the cache over"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"base model {name!r} at revision {revision or 'main'}: {reason}") from None


def _check_files(base: BaseModel) -> None:
    config_file = base.folder / "config.json"
    if not config_file.is_file():
        raise InputError(f"base model {base.name!r}: {config_file.name} is missing, so this is no model folder")
    try:
        model_type = json.loads(config_file.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"base model {base.name!r}: {config_file.name} is damaged; fetch it again") from None
    if model_type != MODEL_TYPE:
        raise InputError(f"base model {base.name!r} is a {model_type!r}; this recipe trains {MODEL_TYPE!r} only")
    missing = [file for file in weight_files(base.folder) if not (base.folder / file).is_file()]
    if missing:
        raise InputError(
            f"base model {base.name!r}: weight file {missing[0]} is missing ({len(missing)} in all); finish the "
            f"download with 'hf download {base.name}'"
        )


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files that hold a base's weights."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    return ["model.safetensors"]


def _fingerprint(folder: Path) -> str:
    """Hash a local model folder: every JSON file whole, of each weight file its size, both ends and sampled blocks.

    Reading 16 GB whole would take minutes from a laptop's disk; different weights differ nearly everywhere, so 64
    blocks spread over each file tell them apart.
    """
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            if file.suffix == ".json" or size <= _SAMPLED_BLOCKS * _BLOCK_BYTES:
                digest.update(content.read())
                continue
            for block in range(_SAMPLED_BLOCKS):
                content.seek((size - _BLOCK_BYTES) * block // (_SAMPLED_BLOCKS - 1))
                digest.update(content.read(_BLOCK_BYTES))
    return digest.hexdigest()[:40]
