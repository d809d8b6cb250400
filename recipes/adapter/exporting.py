"""An export: a plain model folder with an adapter in its weights, whole at its place or absent."""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import InputError
from data_prep.files import check_writable, if_supported, portable_name, sync, write_atomic
from data_prep.locks import HELD_SUFFIX, hold_lock
from recipes.adapter.export_card import export_card
from recipes.adapter.folder import Adapter, check_free
from recipes.adapter.label_tokens import LabelToken, label_tokens
from recipes.adapter.merging import MergedWeights, size_of, write_merged
from recipes.adapter.model_card import CARD_FILE
from recipes.adapter.safety_record import AS_TRAINED, ORIGINAL, Merged, SafetyRecord
from recipes.model.base import OF_AN_EXPORT, BaseModel, fingerprint
from recipes.model.published_layout import published_files

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
        adapter = self.adapter
        weights = MergedWeights(adapter, self.device, original=self.decide is not None)
        tokens = label_tokens(adapter.base.folder)
        report = None if self.decide else _report_of(adapter)
        files = published_files(adapter.base.name, adapter.base.folder, adapter.record.dtype, adapter.record.max_pixels)
        size = size_of(weights.shapes, weights.dtype) + sum(map(len, files.values()))
        self.out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.out.with_name(f".{self.out.name}.unfinished")
        unfinished.mkdir(exist_ok=True)
        with hold_lock(unfinished / LOCK_FILE, f"another process is exporting to {self.out}; wait or end it"):
            try:
                _empty(unfinished)
                check_free(self.out)
                check_writable(self.out.parent, size)
                for name, content in files.items():
                    write_atomic(unfinished / name, content)
                write_merged(weights, unfinished)
                record = self._finish(unfinished, tokens, report)
                _put_in_place(unfinished, self.out)
            except BaseException:
                _remove(unfinished)
                raise
        return record

    def _finish(self, folder: Path, tokens: Mapping[str, LabelToken], report: dict[str, Any] | None) -> SafetyRecord:
        """Write what says of the folder how it is to be asked: its record and its README."""
        adapter = self.adapter
        merged = Merged(
            base_weights=ORIGINAL if self.decide else AS_TRAINED,
            adapter=portable_name(adapter.folder),
            adapter_sha256=adapter.sha256(),
            fingerprint=fingerprint(folder, OF_AN_EXPORT),
        )
        record = replace(
            adapter.record,
            base_model=portable_name(adapter.record.base_model),
            dataset=portable_name(adapter.record.dataset),
            load_in_4bit=False,
            merged=merged,
        )
        name = portable_name(self.out)
        if self.decide:
            threshold, reason = self.decide(Adapter(folder, record, BaseModel(name, merged.fingerprint, folder)))
            record = replace(record, threshold=threshold, threshold_from=reason)
        card = export_card(record, name, tokens, report, f"{merged.adapter}/{_REPORT}")
        write_atomic(folder / CARD_FILE, card.encode())
        record.write(folder)
        return record


def _empty(unfinished: Path) -> None:
    """Remove what a killed export left, but for the lock."""
    for path in unfinished.iterdir():
        if path.name.removesuffix(HELD_SUFFIX) != LOCK_FILE:
            path.unlink()


def _remove(unfinished: Path) -> None:
    """Remove an unfinished folder, its lock last, so that nobody else takes it meanwhile."""
    with contextlib.suppress(OSError):
        _empty(unfinished)
    shutil.rmtree(unfinished, ignore_errors=True)


def _put_in_place(unfinished: Path, out: Path) -> None:
    """Rename a whole folder to its place, with its lock, which is let go of there."""
    for path in unfinished.iterdir():
        with if_supported():
            path.chmod(0o644)
    sync(unfinished)
    unfinished.rename(out)
    for lock in out.glob(f"{LOCK_FILE}*"):
        lock.unlink()
    sync(out.parent)


def _report_of(adapter: Adapter) -> dict[str, Any] | None:
    """Return the report of an adapter's own test split, None where it wasn't evaluated or has been trained anew since.

    Raises InputError where the report is damaged.
    """
    file = adapter.folder / _REPORT
    if not file.is_file():
        return None
    try:
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        own = report["config"]["adapter_sha256"] == adapter.sha256()
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file} is damaged; evaluate the adapter again, or remove the report") from None
    return report if own else None
