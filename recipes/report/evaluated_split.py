"""What an adapter is evaluated on: a split's rows, looked through before any model is loaded. Imports no torch."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data_prep.errors import InputError
from data_prep.hub.source import FramesSource
from data_prep.labels import UNSAFE
from data_prep.media.images import read_image
from recipes.adapter.folder import Adapter
from recipes.adapter.safety_record import SafetyRecord
from recipes.report.folder import folder_of_report


@dataclass(frozen=True)
class EvaluatedSplit:
    """A split of a data set for an adapter to be evaluated on, by its name, and its rows.

    `prior` is the share of UNSAFE frames that is stated, None where none is. With `blank_frames` the rows' pictures are
    grey ones.
    """

    adapter: Adapter
    source: FramesSource
    name: str
    rows: Any
    prior: float | None = None
    blank_frames: bool = False

    @property
    def report_folder(self) -> Path:
        """Where its report lies: for a stated prior, or blank frames, in a folder of its own."""
        found = folder_of_report(self.adapter.folder, self.adapter.record, self.source, self.name)
        if self.blank_frames:
            found /= "blank-frames"
        return found if self.prior is None else found / f"prior-{self.prior:g}"

    @property
    def caveats(self) -> list[str]:
        """What is to be said, a line each, to whoever is shown its figures."""
        said = []
        if self.prior is not None:
            said.append(f"figures are for a share of {self.prior:g} {UNSAFE} frames; counts are the split's own")
        if self.blank_frames:
            said.append("blank frames: an AUROC and a balanced accuracy of 0.5 are what should be seen")
        return said


def open_split(
    adapter: Adapter, source: FramesSource, name: str, *, prior: float | None = None, blank_frames: bool = False
) -> EvaluatedSplit:
    """Return a split of a data set to evaluate an adapter on.

    Raises InputError where it is empty, asks another prompt than the adapter's, or can't be weighed for the prior.
    """
    rows = rows_to_evaluate(source, name, adapter.record)
    check_labels(rows, name, prior)
    if blank_frames:
        rows = rows.map(blank_frame, load_from_cache_file=False, keep_in_memory=True)
    return EvaluatedSplit(adapter, source, name, rows, prior, blank_frames)


def rows_to_evaluate(source: FramesSource, split: str, record: SafetyRecord) -> Any:
    """Return the split's rows. Raises InputError where it is empty or asks another prompt than the adapter's."""
    rows = source.rows(split)
    if len(rows) == 0:
        raise InputError(f"data set {source.id!r}: split {split!r} holds no frame")
    other = set(rows["prompt"][:]) - {record.prompt}
    if other:
        raise InputError(f"data set {source.id!r} asks {min(other)!r}, the adapter was trained on {record.prompt!r}")
    return rows


def check_labels(rows: Any, split: str, prior: float | None) -> None:
    """Raise InputError where a prior is stated and the rows have one label alone: they can't be weighed for it."""
    labels = set(rows["response"][:])
    if prior is not None and len(labels) == 1:
        raise InputError(
            f"--prior {prior:g}: split {split!r} holds {labels.pop()} frames alone and can't be weighed for it; "
            "leave --prior out"
        )


def blank_frame(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose frame is a grey picture of the same size."""
    content = io.BytesIO()
    Image.new("RGB", read_image(row["image"]["bytes"]).size, "grey").save(content, format="PNG")
    return {"image": {"bytes": content.getvalue(), "path": None}}
