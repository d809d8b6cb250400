"""The settings of a run: this project's own, all that are known by name, and a value as the kind that it must be.

Imports neither torch nor TRL, so that a run's inputs are checked before either is loaded.
"""

import json
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from data_prep.errors import InputError
from recipes.layers.sizes import ALL, LLM_LINEARS, TOKEN_SIDE, checked_count
from recipes.metrics.threshold import PLAIN_THRESHOLD, check_rule
from recipes.training.library_settings import NO_EFFECT, REFUSED, USED, Known

MIN_PIXELS = 4 * TOKEN_SIDE**2  # four visual tokens, qwen-vl-utils' own lower limit
COUNTS = ("layers_on_host", "vision_blocks_on_host", "recomputed_layers")  # of layers or blocks: a number, or all
TRUE, FALSE, NULL = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0"), ("none", "null")


@dataclass
class RecipeArguments:
    """What this project adds to the libraries' own arguments."""

    dataset: str = field(metadata={"help": "Id of a pushed data set, or a folder with train.jsonl and test.jsonl."})
    max_pixels: int = field(
        metadata={"help": f"A frame is shrunk to at most this many pixels; {TOKEN_SIDE**2} make one visual token."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Version of a pushed data set; the newest one if not given."}
    )
    balance_labels: bool = field(
        default=True, metadata={"help": "Weigh rows so that SAFE and UNSAFE count the same in the loss."}
    )
    embedding_on_host: bool = field(
        default=False, metadata={"help": "Keep the token embedding in host memory: 1 GiB less on the card for the 7B."}
    )
    head_on_host: bool = field(
        default=False,
        metadata={"help": "Keep the LM head in host memory; it passes through the card in parts."},
    )
    optimizer_on_host: bool = field(
        default=False, metadata={"help": "Run AdamW in fp32 in host memory; the card's adapter takes the base's dtype."}
    )
    cache_vision_features: bool = field(
        default=False, metadata={"help": "Compute the frozen vision tower's features once and keep them on disk."}
    )
    vision_cache: str = field(
        default="cache/vision", metadata={"help": "Folder of the kept vision features; may be deleted at any time."}
    )
    layers_on_host: str = field(
        default="0",
        metadata={
            "help": "Decoder layers whose frozen weights stay in host memory and pass through the card, two at a time: "
            "a number, or all."
        },
    )
    vision_blocks_on_host: str = field(
        default="0", metadata={"help": "The same for the blocks of the vision tower: a number, or all."}
    )
    recomputed_layers: str = field(
        default=ALL,
        metadata={"help": "Of the decoder layers, how many activation_checkpointing recomputes: a number, or all."},
    )
    frames_an_update: int | None = field(
        default=None,
        metadata={
            "help": "Frames an update. Where it is set, what lies where, what is recomputed and how many frames are on "
            "the card at once is planned for this machine, but for lines that say it."
        },
    )
    frames_times_processes: bool = field(
        default=False,
        metadata={
            "help": "Where several processes train, have each take what the other lines say of an update: so many "
            "times as many frames."
        },
    )
    unpack_base: bool = field(
        default=False,
        metadata={"help": "Write 4-bit weights out in dtype once, not at each use: 12 GiB for the 7B."},
    )
    compile_layers: bool = field(
        default=False, metadata={"help": "Compile decoder layers and vision blocks with torch.compile; needs a GPU."}
    )
    cuda_graphs: bool = field(
        default=False,
        metadata={"help": "Run a micro-batch as one CUDA graph: several times as fast at one frame; needs a GPU."},
    )
    threshold: str = field(
        default=str(PLAIN_THRESHOLD),
        metadata={"help": "The P(UNSAFE) from which a frame is UNSAFE, or how to choose it: macro_f1, recall>=0.98."},
    )
    linear_probe: bool = field(
        default=True,
        metadata={"help": "Fit logistic regression on the tower's features, too: what the report compares with."},
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "End after so many validations in a row without a better figure; never if not given."},
    )
    fit_check: bool = field(
        default=True,
        metadata={"help": "Refuse at once what can't fit the machine's memory; false to try nevertheless."},
    )
    resume: bool = field(
        default=False, metadata={"help": "Go on from the last whole checkpoint in output_dir; start if there is none."}
    )

    def __post_init__(self) -> None:
        if self.max_pixels < MIN_PIXELS:
            raise InputError(f"max_pixels {self.max_pixels} is below {MIN_PIXELS}, the least that the model takes")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise InputError(f"early_stopping_patience {self.early_stopping_patience} must be 1 or more, or null")
        if self.frames_an_update is not None and self.frames_an_update < 1:
            raise InputError(f"frames_an_update {self.frames_an_update} must be 1 or more, or null")
        self.threshold = str(self.threshold)  # a number in the YAML comes as one
        check_rule(self.threshold)
        for name in COUNTS:
            setattr(self, name, checked_count(name, getattr(self, name)))


def _own_settings() -> dict[str, Known]:
    """Return RecipeArguments' fields as the libraries' settings are listed."""
    hints, known = get_type_hints(RecipeArguments), {}
    for each in fields(RecipeArguments):
        kinds = [kind for kind in get_args(hints[each.name]) or (hints[each.name],) if kind is not NoneType]
        known[each.name] = Known(kinds[0], None if each.default is MISSING else each.default)
    return known


EFFECTIVE = {**USED, **_own_settings()}
KNOWN = {**EFFECTIVE, **NO_EFFECT, **{name: known for name, (known, _) in REFUSED.items()}}


def typed(name: str, value: Any) -> Any:
    """Return a setting's value as its kind, from what a YAML or a flag says of it.

    Raises InputError where it is of another kind, and for a null where there must be a value.
    """
    kind, default = KNOWN[name]
    if default is None and str(value).lower() in NULL:
        return None
    if value is None:
        raise InputError(f"{name} is null; give it a value, or remove it")
    if kind in (int, float):
        return _number(name, kind, value)
    if kind is bool and str(value).lower() in TRUE + FALSE:
        return str(value).lower() in TRUE
    if kind is str and not isinstance(value, dict):
        return value if isinstance(value, list) else str(value)  # report_to may be a list
    if kind is dict and isinstance(value, str):
        value = _parsed(name, value)
    if kind is list and isinstance(value, str):
        value = [value]
    if kind not in (list, dict) or not isinstance(value, kind):
        raise InputError(f"{name} {value!r} is not {_IN_WORDS[kind]}")
    return checked_linears(list(value)) if name == "lora_target_modules" else value


_IN_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
    str: "a word",
}


def _number(name: str, kind: type, value: Any) -> Any:
    try:
        number = float("" if isinstance(value, bool) else value)
        whole = int(value) if isinstance(value, str) and kind is int else number
    except (TypeError, ValueError):
        raise InputError(f"{name} {value!r} is not {_IN_WORDS[kind]}") from None
    if kind is int and whole != int(number):
        raise InputError(f"{name} {value!r} is not {_IN_WORDS[kind]}")
    return int(number) if kind is int else number


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise InputError(f"{name} {text!r} is not a mapping in JSON") from None


def checked_linears(names: list[str]) -> list[str]:
    """Return LoRA's targets. Raises InputError for one that is none of the seven: the vision tower stays frozen."""
    unknown = sorted({str(name) for name in names} - set(LLM_LINEARS))
    if unknown:
        raise InputError(
            f"lora_target_modules: {', '.join(unknown)} not among {', '.join(LLM_LINEARS)}; remove the line for all"
        )
    return names
