"""An export: a plain model folder with an adapter in its weights, whole at its place or absent."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data_prep.files import check_writable, sync, to_root, write_atomic
from data_prep.locks import HELD_SUFFIX, hold_lock
from recipes.adapter.export_card import export_card
from recipes.adapter.folder import Adapter, check_free
from recipes.adapter.label_tokens import label_tokens
from recipes.adapter.merging import MergedWeights, size_of, write_merged
from recipes.adapter.safety_record import AS_TRAINED, ORIGINAL, Merged, SafetyRecord
from recipes.model.base import BaseModel, fingerprint
from recipes.model.published_layout import published_files

CARD_FILE = "README.md"
LOCK_FILE = ".lock"
_REPORT = Path("eval") / "report.json"

# Chooses the threshold of an export that lies unfinished in a folder, and says how.
Decide = Callable[[Adapter], tuple[float, str]]


@dataclass(frozen=True)
class Export:
    """What is to be exported where. With `decide` it is made of the base's original weights, else of those trained on.

    `device` packs and adds, as the one that trained did: a few GB of a host's or a card's memory.
    """

    adapter: Adapter
    out: Path
    device: torch.device
    decide: Decide | None = None

    def write(self) -> SafetyRecord:
        """Write the folder beside its place, and put it there once it is whole; return its record.

        Raises InputError where something stands there, another process is at it, or the adapter can't be exported;
        OSError where the disk has no room, told before anything is written.
        """
        weights = MergedWeights(self.adapter, self.device, original=self.decide is not None)
        record, base = self.adapter.record, self.adapter.base
        files = published_files(base.name, base.folder, record.dtype, record.max_pixels)
        size = size_of(weights.shapes, weights.dtype) + sum(map(len, files.values()))
        self.out.parent.mkdir(parents=True, exist_ok=True)
        check_writable(self.out.parent, size)
        unfinished = self.out.with_name(f".{self.out.name}.unfinished")
        unfinished.mkdir(exist_ok=True)
        with hold_lock(unfinished / LOCK_FILE, f"another process is exporting to {self.out}; wait or end it"):
            _empty(unfinished)
            check_free(self.out)
            try:
                for name, content in files.items():
                    write_atomic(unfinished / name, content)
                write_merged(weights, unfinished)
                record = self._finish(unfinished)
                _put_in_place(unfinished, self.out)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        return record

    def _finish(self, folder: Path) -> SafetyRecord:
        """Write what says of the folder how it is to be asked: its record and its README."""
        adapter = self.adapter
        merged = Merged(
            base_weights=ORIGINAL if self.decide else AS_TRAINED,
            adapter=_name(adapter.folder),
            adapter_sha256=adapter.sha256(),
            fingerprint=fingerprint(folder),
        )
        record = replace(adapter.record, load_in_4bit=False, merged=merged)
        if self.decide:
            model = BaseModel(_name(self.out), merged.fingerprint, folder)
            threshold, reason = self.decide(Adapter(folder, record, model))
            record = replace(record, threshold=threshold, threshold_from=reason)
        report = None if self.decide else _report_of(adapter.folder)
        card = export_card(record, _name(self.out), label_tokens(folder), report, f"{merged.adapter}/{_REPORT}")
        write_atomic(folder / CARD_FILE, card.encode())
        record.write(folder)
        return record


def _empty(unfinished: Path) -> None:
    """Remove what a killed export left."""
    for path in unfinished.iterdir():
        if path.name.removesuffix(HELD_SUFFIX) != LOCK_FILE:
            path.unlink()


def _put_in_place(unfinished: Path, out: Path) -> None:
    """Rename a whole folder to its place, without its lock."""
    for path in unfinished.iterdir():
        path.chmod(0o644)
    for lock in unfinished.glob(f"{LOCK_FILE}*"):
        lock.unlink()
    sync(unfinished)
    unfinished.rename(out)
    sync(out.parent)


def _report_of(folder: Path) -> dict[str, Any] | None:
    """Return the report of an adapter's own test split, None where it wasn't evaluated."""
    file = folder / _REPORT
    found: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found


def _name(folder: Path) -> str:
    """Name a folder from the project's root; by its own name outside it, for the rest is this machine's alone."""
    name = to_root(folder)
    return folder.name if name.startswith("/") else name
