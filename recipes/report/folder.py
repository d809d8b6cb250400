"""Where a report lies. Imports no torch."""

from pathlib import Path

from data_prep.hub.source import FramesSource
from data_prep.labels import TEST
from recipes.adapter.safety_record import SafetyRecord


def folder_of_report(folder: Path, record: SafetyRecord, source: FramesSource, split: str) -> Path:
    """Return `<adapter>/eval` for the test split of the adapter's own data, a folder below it for anything else."""
    own = folder / "eval"
    if split == TEST and source.content_hash == record.dataset_hash:
        return own
    return own / f"{source.id.replace('/', '--').strip('-.')}-{source.content_hash[:8]}-{split}"
