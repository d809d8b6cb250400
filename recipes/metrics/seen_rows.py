"""What training computed of its rows each time it saw them: the log-odds of each row's label, in a file of the run.

What is learned late, or never, is worth a look: area under the margin, arXiv 2001.10528; dataset cartography, arXiv
2009.10795.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from data_prep.errors import InputError
from data_prep.files import write_atomic

SCHEMA_VERSION = 1
_NAME = "log_odds"
_KINDS = {"row": np.int32, "update": np.int32, "log_odds": np.float32}


@dataclass(frozen=True)
class SeenRows:
    """n sightings of training rows, in the order of the updates they were made in; each array has shape (n,).

    `row` is a row's number in the training split, from 0 on; `update` the one, from 1 on, that it was a part of; and
    `log_odds` the logit of its label less that of the other, in nats, as the loss had them: before that update, with
    dropout.
    """

    row: np.ndarray
    update: np.ndarray
    log_odds: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["SeenRows"]) -> "SeenRows":
        """Return sightings of several processes, or of one after another, as one; nothing for none."""
        columns = {
            name: np.concatenate([np.zeros(0, kind), *(getattr(part, name) for part in parts)]).astype(kind)
            for name, kind in _KINDS.items()
        }
        order = np.argsort(columns["update"], kind="stable")
        return cls(**{name: values[order] for name, values in columns.items()})

    def __len__(self) -> int:
        return len(self.row)

    def write(self, folder: Path, process: int = 0) -> None:
        """Write what one process saw into a checkpoint's or a run's folder, whole or not at all."""
        content = save({name: getattr(self, name) for name in _KINDS}, {"schema_version": str(SCHEMA_VERSION)})
        write_atomic(folder / file_name(process), content)


def file_name(process: int = 0) -> str:
    """Return the name of the file that a process writes, each its own: the first `log_odds.safetensors`."""
    return f"{_NAME}.safetensors" if process == 0 else f"{_NAME}.{process}.safetensors"


def read_seen_rows(folder: Path) -> SeenRows | None:
    """Return what all processes saw, as written into a folder, None where nothing was.

    Raises InputError where a file is damaged, or of a later version.
    """
    files = sorted(folder.glob(f"{_NAME}.safetensors")) + sorted(folder.glob(f"{_NAME}.*.safetensors"))
    return SeenRows.joined([_read(file) for file in files]) if files else None


def _read(file: Path) -> SeenRows:
    try:
        with safe_open(file, framework="np") as content:
            version = (content.metadata() or {}).get("schema_version")
            columns = {name: content.get_tensor(name) for name in _KINDS} if version == str(SCHEMA_VERSION) else {}
    except SafetensorError:
        raise InputError(f"{file}: damaged; train the adapter again, or remove the file to go without it") from None
    if version != str(SCHEMA_VERSION):
        raise InputError(f"{file}: schema_version {version} is not {SCHEMA_VERSION}; a later version wrote it")
    if len({values.shape for values in columns.values()}) > 1 or columns["row"].ndim != 1:
        raise InputError(f"{file}: damaged; train the adapter again, or remove the file to go without it")
    return SeenRows(**columns)
