"""The yardstick of the rankings: each clip's frames as two short trainings answer that never saw the clip."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measuring.demo_runs import run_python, train_on
from benchmarks.measuring.doubtful_labels import link_data
from data_prep.files import to_root
from data_prep.labels import TRAIN, UNSAFE, VALIDATION, rows_file
from data_prep.rows.frames import Frame, read_frames
from data_prep.rows.jsonl import Row, write_rows

FOLDS = 2
EPOCHS = "2"  # of four


def out_of_fold_log_odds(data: Path, frames: Sequence[Frame], folder: Path, seed: int) -> np.ndarray:
    """Return the log-odds of the frames' labels by the training that didn't see their clips: (frames,).

    Clips of one content go together. Both trainings, and what each is asked about, lie in `folder`.
    """
    contents = sorted({frame.clip_sha256 for frame in read_frames(data, TRAIN)})
    shuffled = np.random.default_rng(seed).permutation(len(contents)).tolist()
    fold_of = {contents[position]: number % FOLDS for number, position in enumerate(shuffled)}
    p_unsafe: dict[tuple[str, int], float] = {}
    for fold in range(FOLDS):
        seen, unseen = (part_of(data, folder / f"{name}{fold}", fold_of, want) for name, want in _wanted(fold))
        p_unsafe |= answers(train(seen, folder / f"run{fold}", seed), unseen)
    p = np.array([p_unsafe[frame.clip, frame.sample] for frame in frames]).clip(1e-7, 1 - 1e-7)
    sign = np.array([1 if frame.response == UNSAFE else -1 for frame in frames])
    log_odds: np.ndarray = sign * np.log(p / (1 - p))
    return log_odds


def _wanted(fold: int) -> list[tuple[str, int]]:
    return [("seen", fold), ("unseen", 1 - fold)]


def part_of(data: Path, folder: Path, fold_of: dict[str, int], fold: int) -> Path:
    """Make a data folder with the training rows of one fold."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        link_data(data, folder)
        kept = [frame for frame in read_frames(data, TRAIN) if fold_of[frame.clip_sha256] == fold]
        write_rows(folder / rows_file(TRAIN), [Row(frame.image, frame.prompt, frame.response) for frame in kept])
    return folder


def train(data: Path, run: Path, seed: int) -> Path:
    """Train by the demo's recipe, for half its epochs, unless that is done."""
    if not (run / "safety.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        train_on(data, run, seed, "--num_train_epochs", EPOCHS)
    return run


def answers(run: Path, data: Path) -> dict[tuple[str, int], float]:
    """Return P(UNSAFE) of the training rows of a data folder, by clip and sample, as a run's adapter answers them."""
    asked = sorted((run / "eval").glob("*/predictions.jsonl"))
    for split in (TRAIN, VALIDATION)[len(asked) :]:  # both are of train.jsonl
        ask = ["recipes/eval_qwen2vl.py", "--adapter", str(run), "--dataset", str(data), "--split", split]
        options = ["--skip-base-model", "--without-frames", "--batch-size", "16"]
        run_python([*ask, *options], f"asking {to_root(run)}")
    files = (run / "eval").glob("*/predictions.jsonl")
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return {(line["clip"], line["sample"]): line["p_unsafe"] for line in lines}
