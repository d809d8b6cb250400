"""Features of many frames, kept in a file without a name and read back a few at a time. Imports no torch."""

import tempfile
from collections.abc import Iterable
from io import BufferedRandom
from pathlib import Path

import numpy as np

from data_prep.disk.byte_counts import GIB
from data_prep.errors import InputError


class StoredFeatures:
    """Features of shape (frames, width), in fp32; a slice of frames is read when it is asked for.

    They lie in a file that has no name and goes when this object does, or the process, however that ends.
    """

    def __init__(self, file: BufferedRandom, shape: tuple[int, int]) -> None:
        self._file, self.shape = file, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: slice) -> np.ndarray:
        start, stop, _ = frames.indices(len(self))
        part = np.empty((stop - start, self.shape[1]), np.float32)
        self._file.seek(start * self.shape[1] * part.itemsize)
        self._file.readinto(part.data)
        return part


def store(parts: Iterable[np.ndarray], folder: Path) -> StoredFeatures:
    """Write features, of shape (some frames, width) each, as they come, on the disk that `folder` is on.

    Raises InputError where that is full.
    """
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    frames = width = 0
    for part in parts:
        frames, width = frames + len(part), part.shape[1]
        try:
            file.write(np.ascontiguousarray(part, np.float32).data)
            file.flush()
        except OSError as error:
            gib = frames * width * 4 / GIB
            raise InputError(
                f"{folder}: no room for {gib:.1f} GiB of the linear probe's features ({error.strerror}); free some and "
                "go on with --resume, or set linear_probe: false"
            ) from None
    return StoredFeatures(file, (frames, width))
