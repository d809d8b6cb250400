"""A run's settings: the YAML it starts from, our own arguments, and the record that --resume compares with.

Imports neither torch nor TRL, so that a run's inputs are checked before either is loaded.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data_prep.errors import InputError
from data_prep.files import from_root, write_json
from recipes.operating_point import check_rule
from recipes.safety_record import RUN_FILE, is_finished

DEFAULT_CONFIG = "recipes/configs/qwen2vl_7b_8gb.yaml"
LOCK_NAME = ".lock"
MIN_PIXELS = 4 * 28 * 28  # four visual tokens, qwen-vl-utils' own lower limit

# What may differ between a run and its continuation: where it runs and how it talks, never what it computes.
_FREE_SETTINGS = {
    "fit_check",
    "resume",
    "output_dir",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "disable_tqdm",
    "log_level",
    "report_to",
    "run_name",
    "vision_cache",
}


@dataclass
class RecipeArguments:
    """What this project adds to the libraries' own arguments."""

    dataset: str = field(metadata={"help": "Id of a pushed data set, or a folder with train.jsonl and test.jsonl."})
    max_pixels: int = field(
        metadata={"help": "A frame is shrunk to at most this many pixels; 784 make one visual token."}
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
        default="0.5",
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
        self.threshold = str(self.threshold)  # a number in the YAML comes as one
        check_rule(self.threshold)


@dataclass(frozen=True)
class Inputs:
    """The few settings that can be checked before torch and TRL are loaded."""

    dataset: str
    dataset_revision: str | None
    model_name_or_path: str
    model_revision: str | None
    output_dir: Path
    resume: bool


def with_default_config(argv: list[str]) -> list[str]:
    """Return the arguments with `--config` resolved against the project's root; the 8 GB recipe if there is none."""
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if "--config" not in argv:
        return ["--config", str(from_root(DEFAULT_CONFIG)), *argv]
    position = argv.index("--config") + 1
    if position == len(argv):
        raise InputError("--config needs the path of a YAML file, for example recipes/configs/demo_cpu.yaml")
    argv[position] = str(from_root(argv[position]))
    return argv


def read_inputs(argv: list[str]) -> Inputs:
    """Read what can be checked early from the YAML of `--config` and the overrides that follow it.

    Raises InputError for a missing or malformed YAML, and for one that names no base model or output folder.
    """
    settings = read_yaml(Path(argv[argv.index("--config") + 1]))
    for flag, value in zip(argv, [*argv[1:], "--"], strict=True):
        if flag.startswith("--"):
            name, equals, inline = flag[2:].partition("=")
            settings[name.replace("-", "_")] = inline if equals else (True if value.startswith("--") else value)
    for required in ("model_name_or_path", "output_dir", "dataset"):
        if not settings.get(required):
            raise InputError(f"{required} is not set; set it in the YAML or give --{required}")
    return Inputs(
        dataset=settings["dataset"],
        dataset_revision=settings.get("dataset_revision"),
        model_name_or_path=settings["model_name_or_path"],
        model_revision=settings.get("model_revision"),
        output_dir=from_root(settings["output_dir"]),
        resume=str(settings.get("resume", False)).lower() in ("yes", "true", "t", "y", "1"),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML's lines. Raises InputError where it is missing or malformed."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config {path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not YAML ({error})") from None
    if not isinstance(settings, dict):
        raise InputError(f"--config {path}: must hold one 'name: value' a line")
    return settings


def check_output_folder(inputs: Inputs) -> None:
    """Raise InputError where the run's folder is in use: a finished run, or an unfinished one without `--resume`."""
    folder = inputs.output_dir
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir {folder} is a file; name another with --output_dir")
    found = {path.name for path in folder.iterdir()} - {LOCK_NAME} if folder.exists() else set()
    if found and RUN_FILE not in found:
        raise InputError(f"output_dir {folder} is not empty and holds no run; name another with --output_dir")
    if inputs.resume or not _has_begun(folder):
        return
    if is_finished(folder):
        raise InputError(
            f"output_dir {folder} holds a finished run, which is never overwritten; name another output_dir"
        )
    raise InputError(f"output_dir {folder} holds an unfinished run; go on with --resume or name another output_dir")


def _has_begun(folder: Path) -> bool:
    """Say whether a run's folder holds work: a setting refused before the first checkpoint must not lock it."""
    return is_finished(folder) or any(folder.glob("checkpoint-*"))


def record_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the run's settings as run.json into its folder, or compare with what stands there.

    Raises InputError where a continued run's settings or data differ from those it began with.
    """
    settings = json.loads(json.dumps(settings, default=str))
    file = folder / RUN_FILE
    if not _has_begun(folder):
        write_json(file, settings)
        return
    begun = json.loads(file.read_text(encoding="utf-8"))
    for name in sorted(set(begun) | set(settings)):
        if name not in _FREE_SETTINGS and begun.get(name) != settings.get(name):
            raise InputError(
                f"--resume: {name} was {begun.get(name)!r} when {folder.name} began and is {settings.get(name)!r} now; "
                f"set it back, or start anew with another output_dir"
            )
