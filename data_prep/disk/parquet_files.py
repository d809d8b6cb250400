"""Writing Parquet on a disk that may be full: Arrow's own writer would end the process, and not by an exception."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from data_prep.disk.disk_errors import named

if TYPE_CHECKING:
    from datasets import Dataset


def write_parquet(rows: "Dataset", path: Path) -> None:
    """Write a split as one Parquet file. Raises OSError, naming it, where the disk doesn't take it."""
    with named(path, rows.data.nbytes), path.open("wb") as file:
        held = _HeldError(file)
        rows.to_parquet(held)
        if held.error:
            raise held.error


class _HeldError(io.RawIOBase):
    """A file to write to whose first error is kept to be raised later, when Arrow's writer is through."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = 0
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Say that this can be written to."""
        return True

    def tell(self) -> int:
        """Return how many bytes came."""
        return self._written

    def write(self, content: Any) -> int:
        """Write the bytes, unless one write has failed already; return how many they are."""
        size = memoryview(content).nbytes
        self._written += size
        try:
            if self.error is None:
                self._file.write(content)
        except OSError as error:
            self.error = error
        return size
