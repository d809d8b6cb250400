"""safety.json: what stands beside every adapter, so that whoever uses it asks what it was trained to answer."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import write_json
from data_prep.labels import LABELS
from recipes.base_model import BaseModel, find_base

FILE_NAME = "safety.json"
RUN_FILE = "run.json"  # the settings, which training writes first
SCHEMA_VERSION = 2
PLAIN_THRESHOLD = 0.5  # the likelier of the two answers


@dataclass(frozen=True)
class SafetyRecord:
    """How an adapter was trained and is to be asked. Training alone writes it.

    `threshold` is the P(UNSAFE) from which a frame is UNSAFE, and `threshold_from` says how it was chosen.
    `training_prior` is the share that UNSAFE has in the training loss: 0.5 where labels are balanced. `max_pixels`
    limits a frame's width times height, in pixels. The `dataset_` fields are provenance.
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
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise InputError(f"schema_version {self.schema_version} is not {SCHEMA_VERSION}; train the adapter again")
        if tuple(self.labels) != LABELS:
            raise InputError(f"labels {list(self.labels)} are not {list(LABELS)}; this adapter answers something else")
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise InputError("prompt is empty; train the adapter again")
        if not 0.0 <= self.threshold <= 1.0:
            raise InputError(f"threshold {self.threshold} is not between 0 and 1")
        if not 0.0 < self.training_prior < 1.0:
            raise InputError(f"training_prior {self.training_prior} is not between 0 and 1")
        if self.max_pixels < 1:
            raise InputError(f"max_pixels {self.max_pixels} is not positive")

    def write(self, folder: Path) -> None:
        """Write the record into an adapter's folder, whole or not at all."""
        write_json(folder / FILE_NAME, asdict(self))


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
        raise InputError(f"{file}: not JSON ({error}); train the adapter again") from None
    names = {field.name for field in fields(SafetyRecord)}
    if not isinstance(record, dict) or set(record) != names:
        raise InputError(f"{file}: keys {sorted(set(record) ^ names)} are missing or unknown; train the adapter again")
    try:
        return SafetyRecord(**{**record, "labels": tuple(record["labels"])})
    except (InputError, TypeError) as error:
        raise InputError(f"{file}: {error}") from None


def find_base_of(folder: Path, record: SafetyRecord) -> BaseModel:
    """Find the base model that the adapter in `folder` was trained on.

    Raises InputError where the adapter's own configuration names another base, or where what lies under that name is
    not the base of that revision.
    """
    try:
        named = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError):
        raise InputError(f"adapter {folder}: adapter_config.json is missing or damaged; train it again") from None
    if named != record.base_model:
        raise InputError(f"adapter {folder} is for base {named!r}, but {FILE_NAME} says {record.base_model!r}")
    base = find_base(record.base_model, record.base_revision)
    if base.revision != record.base_revision:
        raise InputError(
            f"adapter {folder} was trained on {record.base_model!r} of revision {record.base_revision[:12]}; what lies "
            f"there now is {base.revision[:12]}; restore that base or train again"
        )
    return base
