"""Test frames that `make demo` leaves, for benchmarks that ask about them, and what infer.py says of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.arms import run
from data_prep.errors import InputError
from data_prep.rows.jsonl import read_rows


def frames_of_test(data: Path, count: int, *, least: int = 1) -> list[Path]:
    """Return at most `count` test frames, evenly out of all. Raises InputError where there are fewer than `least`."""
    rows = read_rows(data / "test.jsonl")
    if len(rows) < least:
        raise InputError(f"{data}: {len(rows)} test frames, {least} are needed; run make demo first")
    return [data / row.image for row in rows[:: max(len(rows) // count, 1)][:count]]


def said_by_infer(folder: Path | str, frames: Sequence[Path], *flags: str) -> list[dict[str, Any]]:
    """Return what infer.py says of each frame, asked with an adapter's or an export's folder."""
    said = run(["recipes/infer.py", "--adapter", str(folder), "--json", *flags, "--image", *map(str, frames)])
    return [json.loads(line) for line in said.splitlines()]
