"""Which of a run's checkpoints are whole. Imports neither torch nor transformers."""

import json
import re
from pathlib import Path

from data_prep.files import sha256_of_file, write_json

SEAL_NAME = "checkpoint.sha256.json"


def seal(checkpoint: Path) -> None:
    """Record the SHA-256 of every file of a finished checkpoint folder. Without its seal a checkpoint is torn."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != SEAL_NAME)
    write_json(
        checkpoint / SEAL_NAME, {path.relative_to(checkpoint).as_posix(): sha256_of_file(path) for path in files}
    )


def is_whole(checkpoint: Path) -> bool:
    """Say whether every file that the checkpoint's seal lists is there with the content it was sealed with."""
    try:
        sealed = json.loads((checkpoint / SEAL_NAME).read_text(encoding="utf-8"))
        return all(sha256_of_file(checkpoint / name) == digest for name, digest in sealed.items())
    except (OSError, ValueError, AttributeError):
        return False


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
