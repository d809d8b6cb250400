"""Which of a run's checkpoints are whole. Imports neither torch nor transformers."""

import json
import re
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import sha256_of_file, sync, write_json

SEAL_NAME = "checkpoint.sha256.json"
STATE_NAME = "trainer_state.json"
LATE_VALIDATION = "LateValidation"  # the name, a class's, under which a state notes whether a validation is due


def checkpoint_of(run: Path, step: int) -> Path:
    """Return where transformers' trainer saves the checkpoint of an optimizer step."""
    return run / f"checkpoint-{step}"


def has_checkpoints(run: Path) -> bool:
    """Say whether a run holds any, whole or torn."""
    return any(run.glob("checkpoint-*"))


def seal(checkpoint: Path) -> None:
    """Record the SHA-256 of every file of a finished checkpoint folder. Without its seal a checkpoint is torn.

    All of it is on the disk itself when this returns, so that a power cut takes no older checkpoint's place.
    """
    found = sorted(path for path in checkpoint.rglob("*") if path.name != SEAL_NAME)
    files = [path for path in found if path.is_file()]
    for path in found:
        sync(path)
    write_json(
        checkpoint / SEAL_NAME, {path.relative_to(checkpoint).as_posix(): sha256_of_file(path) for path in files}
    )
    sync(checkpoint)
    sync(checkpoint.parent)


def is_whole(checkpoint: Path) -> bool:
    """Say whether every file that the checkpoint's seal lists is there with the content it was sealed with.

    Raises OSError where one can't be read: a whole checkpoint would pass for a torn one.
    """
    try:
        sealed = json.loads((checkpoint / SEAL_NAME).read_text(encoding="utf-8"))
        return all(sha256_of_file(checkpoint / name) == digest for name, digest in sealed.items())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, AttributeError):
        return False


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return what the trainer noted of its progress when it saved a checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))
    return state


def stopping_count(state: dict[str, Any]) -> tuple[int, int] | None:
    """Return early stopping's count of validations without a better figure, and its patience; None without it."""
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback")
    if stopping is None:
        return None
    return stopping["attributes"]["early_stopping_patience_counter"], stopping["args"]["early_stopping_patience"]


def validation_is_due(state: dict[str, Any]) -> bool:
    """Say whether a validation was cut off as a checkpoint was left; earlier versions noted nothing of that."""
    noted = state["stateful_callbacks"].get(LATE_VALIDATION)
    return noted is not None and bool(noted["attributes"]["is_due"])


def is_trained_out(checkpoint: Path) -> bool:
    """Say whether nothing is left to train after a checkpoint: all updates are made, or early stopping ended it.

    Where a validation is due yet, there is something left.
    """
    state = read_state(checkpoint)
    if validation_is_due(state):
        return False
    count, patience = stopping_count(state) or (0, 1)
    return bool(state["global_step"] >= state["max_steps"] or count >= patience)


def best_checkpoint(run: Path, best_step: int) -> Path:
    """Return the checkpoint of the best step, wherever the run lies now. Raises InputError where it isn't whole."""
    checkpoint = checkpoint_of(run, best_step)
    if not is_whole(checkpoint):
        raise InputError(
            f"{run}: {checkpoint.name}, the best so far, is missing or damaged, and another would pass for it; put it "
            "back, or start anew with another output_dir"
        )
    return checkpoint


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step that a `checkpoint-<step>` folder was saved at."""
    return int(checkpoint.name.rpartition("-")[2])


def last_whole_checkpoint(run: Path) -> tuple[Path | None, list[Path]]:
    """Return the newest whole checkpoint of a run, or None, and the torn ones newer than it."""
    found = [path for path in run.glob("checkpoint-*") if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name)]
    torn: list[Path] = []
    for checkpoint in sorted(found, key=step_of, reverse=True):
        if is_whole(checkpoint):
            return checkpoint, torn
        torn.append(checkpoint)
    return None, torn
