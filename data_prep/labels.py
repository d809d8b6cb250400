"""The eight source classes, the two answers, the splits, the prompt and a row's chat messages: their only home."""

import re
from dataclasses import dataclass
from typing import Any

from data_prep.errors import InputError

SAFE = "SAFE"
UNSAFE = "UNSAFE"
LABELS = (SAFE, UNSAFE)  # the index is the class id that metrics use: UNSAFE, the positive class, is 1

PROMPT = (
    "You are a workplace safety inspector reviewing CCTV footage. "
    "Classify the behavior as SAFE or UNSAFE. Answer with only one word."
)

TRAIN, VALIDATION, TEST = DATASET_SPLITS = ("train", "validation", "test")
SPLITS = (TRAIN, TEST)  # as published; validation is cut from train


def rows_file(split: str) -> str:
    """Return the name of the file that holds a split's rows in a data folder: `train.jsonl`."""
    return f"{split}.jsonl"


@dataclass(frozen=True)
class SourceClass:
    """One of the data set's eight behaviours: its folder's digit and name, and the label it collapses to."""

    digit: int
    name: str
    label: str

    @property
    def folder(self) -> str:
        """The folder name as the brief spells it, for example `2_opened_panel_cover`."""
        return f"{self.digit}_{self.name}"

    @property
    def description(self) -> None:
        """None: what the eight are is told by their names."""
        return None


SOURCE_CLASSES = (
    SourceClass(0, "safe_walkway_violation", UNSAFE),
    SourceClass(1, "unauthorized_intervention", UNSAFE),
    SourceClass(2, "opened_panel_cover", UNSAFE),
    SourceClass(3, "carrying_overload_with_forklift", UNSAFE),
    SourceClass(4, "safe_walkway", SAFE),
    SourceClass(5, "authorized_intervention", SAFE),
    SourceClass(6, "closed_panel_cover", SAFE),
    SourceClass(7, "safe_carrying", SAFE),
)

_BY_FOLDER = {source_class.folder: source_class for source_class in SOURCE_CLASSES}


def fold_name(name: str) -> str:
    """Fold case, and runs of spaces, hyphens and underscores, so that spellings of one name compare equal."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold()).strip("_")


def source_class_of_folder(folder: str) -> SourceClass:
    """Return the source class that a class folder's name stands for, however it is spelled.

    Raises InputError for a name that is none of the eight, or whose digit belongs to another behaviour.
    """
    folded = fold_name(folder)
    if folded in _BY_FOLDER:
        return _BY_FOLDER[folded]
    digit, _, name = folded.partition("_")
    for source_class in SOURCE_CLASSES:
        if source_class.name == name and digit.isdigit():
            raise InputError(
                f"class folder {folder!r}: digit {digit} does not go with {name!r}, which is class "
                f"{source_class.digit}; rename the folder to {source_class.folder!r} or correct its name"
            )
    allowed = ", ".join(_BY_FOLDER)
    raise InputError(
        f"class folder {folder!r} is none of the eight behaviours; allowed: {allowed}; folders of "
        "your own are named in a file, --classes"
    )


def chat_messages(image: Any, prompt: str, response: str | None = None) -> list[dict[str, Any]]:
    """Lay out one row as chat messages in the form that processors and qwen-vl-utils read.

    `image` is a PIL image. Without `response` the conversation ends with the user's turn, ready for an answer.
    """
    user = {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": prompt}]}
    if response is None:
        return [user]
    return [user, {"role": "assistant", "content": [{"type": "text", "text": response}]}]
