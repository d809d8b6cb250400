"""safety.json: what stands beside every adapter, so that whoever uses it asks what it was trained to answer."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from data_prep.errors import InputError
from data_prep.files import write_json
from data_prep.labels import LABELS
from data_prep.media.frame_format import FrameFormat
from recipes.metrics.prior_shift import at_prior
from recipes.metrics.threshold import FIXED, label_of

FILE_NAME = "safety.json"
RUN_FILE = "run.json"  # the settings, which training writes first
SCHEMA_VERSION = 4
_AGAIN = "train the adapter again"
DTYPES = ("bfloat16", "float32")
AS_TRAINED, ORIGINAL = "as trained", "original"  # the base's weights that an export was made of


@dataclass(frozen=True)
class Merged:
    """What a whole model with its adapter in it was made of: an export's own part of its record.

    `base_weights` is AS_TRAINED or ORIGINAL. `fingerprint` is that of the folder's files, this record's apart.
    """

    base_weights: str
    adapter: str
    adapter_sha256: str
    fingerprint: str


@dataclass(frozen=True)
class SafetyRecord:
    """How an adapter was trained and is to be asked. Training writes it, and export.py that of a merged one.

    `threshold` is the P(UNSAFE) from which a frame is UNSAFE, and `threshold_from` says how it was chosen.
    `training_prior` is the share that UNSAFE has in the training loss: 0.5 where labels are balanced. `max_pixels`
    limits a frame's width times height, in pixels. The `dataset_` fields are provenance. `frames` says how extraction
    kept the frames of the training clips, None where that isn't known. `merged` says what a whole model was made of,
    and is None for an adapter. `load_in_4bit` says how the weights beside it are loaded.
    """

    prompt: str
    labels: tuple[str, ...]
    max_pixels: int
    base_model: str
    base_revision: str
    dtype: str
    load_in_4bit: bool
    threshold: float
    threshold_from: str
    training_prior: float
    dataset: str
    dataset_revision: str | None
    dataset_hash: str
    seed: int
    frames: FrameFormat | None = None
    merged: Merged | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(SafetyRecord).items():
            if name != "labels" and not _is_a(getattr(self, name), kind):
                raise InputError(f"{name} {getattr(self, name)!r} is of another kind than it was written; {_AGAIN}")
        if self.schema_version != SCHEMA_VERSION:
            raise InputError(f"schema_version {self.schema_version} is not {SCHEMA_VERSION}; {_AGAIN}")
        if tuple(self.labels) != LABELS:
            raise InputError(f"labels {list(self.labels)} are not {list(LABELS)}; this adapter answers something else")
        if not self.prompt.strip():
            raise InputError(f"prompt is empty; {_AGAIN}")
        if not 0.0 <= self.threshold <= 1.0:
            raise InputError(f"threshold {self.threshold} is not between 0 and 1")
        if not 0.0 < self.training_prior < 1.0:
            raise InputError(f"training_prior {self.training_prior} is not between 0 and 1")
        if self.max_pixels < 1:
            raise InputError(f"max_pixels {self.max_pixels} is not positive")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}; {_AGAIN}")

    def check_adapter(self, folder: Path) -> None:
        """Raise InputError where what lies in `folder` isn't an adapter to be put on its base, but a whole model."""
        if self.merged:
            raise InputError(f"{folder} is an export, not an adapter; name the run that it was made of")

    @property
    def max_side(self) -> int | None:
        """The most pixels a side of training's frames: larger ones are shrunk to it first, as those were."""
        return self.frames.max_side if self.frames else None

    def label_of(self, p_unsafe: float, prior: float | None = None) -> str:
        """Return the answer to a P(UNSAFE) that at_prior gave for a share `prior` of UNSAFE frames.

        Raises InputError where it is no number from 0 to 1.
        """
        return label_of(p_unsafe, self.threshold_at(prior))

    def threshold_at(self, prior: float | None) -> float:
        """Return the threshold of a P(UNSAFE) that at_prior gave for a share `prior` of UNSAFE frames.

        A fixed one says how much surer UNSAFE has to be, so it is applied to P as it comes out, and answers change: 0.5
        is the likelier of the two wherever that is. One that a rule chose on validation frames marks a place among the
        scores, so it moves with them, and the rule keeps its promise.
        """
        return self.threshold if self.threshold_from == FIXED else float(self.at_prior(self.threshold, prior))

    def at_prior(self, p_unsafe: Any, prior: float | None) -> Any:
        """Return P(UNSAFE), of any shape, for a share `prior` of UNSAFE frames; as it is for None."""
        if prior is None:
            return p_unsafe
        return at_prior(p_unsafe, training_prior=self.training_prior, prior=prior)

    def write(self, folder: Path) -> None:
        """Write the record into an adapter's folder, whole or not at all."""
        write_json(folder / FILE_NAME, asdict(self))


def _is_a(value: Any, kind: Any) -> bool:
    """Say whether a value read from JSON is of a field's type; whole numbers pass for float, truth values for none."""
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _part(kind: type, value: Any) -> Any:
    """Return the dataclass that JSON holds; what is none stays, for the record to refuse."""
    is_one = isinstance(value, dict) and set(value) == {field.name for field in fields(kind)}
    return kind(**value) if is_one else value


# What an earlier version's record lacks: 2 doesn't know how frames were kept, and neither knows exports.
_SINCE = {2: ("frames", "merged"), 3: ("merged",)}


def _current(record: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier version's record would have said in this one."""
    version = record.get("schema_version")
    added = _SINCE.get(version, ()) if isinstance(version, int) else ()
    if not added or set(added) & set(record):
        return record
    return {**record, **dict.fromkeys(added), "schema_version": SCHEMA_VERSION}


def is_finished(folder: Path) -> bool:
    """Say whether a run's folder holds a finished adapter: the record is written last."""
    return (folder / FILE_NAME).is_file()


def read_record(folder: Path) -> SafetyRecord:
    """Read the record of the adapter in `folder`.

    Raises InputError where there is no adapter, where its run hasn't finished, or where the record is damaged or of
    another kind.
    """
    file = folder / FILE_NAME
    if not folder.is_dir():
        raise InputError(f"adapter {folder}: no such folder; train one with recipes/sft_qwen2vl.py")
    if not (file.is_file() or (folder / RUN_FILE).is_file()):
        raise InputError(f"adapter {folder}: no run lies there; name a run's own folder, such as outputs/demo")
    if not file.is_file():
        raise InputError(f"adapter {folder}: {FILE_NAME} is missing; the run hasn't finished, go on with --resume")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); {_AGAIN}") from None
    names = {field.name for field in fields(SafetyRecord)}
    record = _current(record) if isinstance(record, dict) else {}
    if set(record) != names:
        raise InputError(f"{file}: keys {sorted(set(record) ^ names)} are missing or unknown; {_AGAIN}")
    try:
        parts = {"frames": _part(FrameFormat, record["frames"]), "merged": _part(Merged, record["merged"])}
        return SafetyRecord(**{**record, "labels": tuple(record["labels"]), **parts})
    except (InputError, TypeError) as error:
        raise InputError(f"{file}: {error}") from None
