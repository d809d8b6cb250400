"""The trainings of bench_doubts: what each learns from, and what its doubts led to."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.made.late_clips import write_late_clips
from benchmarks.measuring.demo_runs import run_python, train_on
from benchmarks.measuring.doubt_tables import ROWS, ranking_figures
from benchmarks.measuring.doubtful_labels import (
    clips_on_the_wrong_side,
    contradicted,
    flip,
    frames_flipped,
    hidden_samples,
    images_hidden,
    link_data,
)
from benchmarks.measuring.out_of_fold import out_of_fold_log_odds
from data_prep.clips.jsonl import CLIPS_FILE
from data_prep.demo.record import RECORD_FILE
from data_prep.errors import InputError
from data_prep.files import to_root, write_json
from data_prep.labels import TRAIN, rows_file
from data_prep.rows.frames import Frame
from data_prep.rows.validation import split_frames
from recipes.metrics.seen_rows import read_seen_rows

CLEAN, FLIPPED_10, FLIPPED_20, WRONG_CLIPS, LATE = "clean", "flipped_10", "flipped_20", "wrong_clips", "late"
FLIPPED_20_REVIEWED, LATE_REVIEWED, CLEAN_LEFT_OUT = "flipped_20_reviewed", "late_reviewed", "clean_left_out"
ARMS = (
    *(CLEAN, FLIPPED_20, LATE, FLIPPED_10, WRONG_CLIPS),
    *(FLIPPED_20_REVIEWED, LATE_REVIEWED, CLEAN_LEFT_OUT),
)
SHARES = {FLIPPED_10: 0.1, FLIPPED_20: 0.2}
CLIPS_OF_EACH_LABEL = 3
REVIEWED = {FLIPPED_20_REVIEWED: FLIPPED_20, LATE_REVIEWED: LATE}
SHOWN, UNSEEN = 0.2, 0.02  # of the frames: what the reviewer is shown, and what is left out without one
YARDSTICK_RUNS = {(FLIPPED_20, 0), (LATE, 0)}  # it takes two trainings more for each
TRUTH_FILE, RUN_FILE = "labels_made_wrong.json", "bench_run.json"


def check_demo(demo: Path) -> None:
    """Raise InputError where a folder doesn't hold what `make demo` leaves."""
    if not all((demo / name).is_file() for name in (RECORD_FILE, CLIPS_FILE, rows_file(TRAIN))):
        raise InputError(f"{to_root(demo)}: no demo; run 'make demo' first, which leaves all that this needs")


@dataclass(frozen=True)
class Doubts:
    """All runs with one seed: of the flips, of which clips are late, and of the trainings."""

    demo: Path
    out: Path
    seed: int

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.out / f"seed{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """What the demo was drawn with."""
        settings: dict[str, Any] = json.loads((self.demo / RECORD_FILE).read_text(encoding="utf-8"))["settings"]
        return settings

    def finish(self, arm: str) -> dict[str, Any]:
        """Return what an arm's run says, once it is trained and evaluated."""
        run, data = self.folder / arm, self.folder / f"{arm}_data"
        record = run / RUN_FILE
        if not record.is_file():
            print(f"seed {self.seed}, {arm}", file=sys.stderr)
            shutil.rmtree(run, ignore_errors=True)
            if not (data / TRUTH_FILE).is_file():
                shutil.rmtree(data, ignore_errors=True)
                write_json(data / TRUTH_FILE, self.make_data(arm, data))
            seconds = self.train(data, run)
            write_json(record, {"arm": arm, "seed": self.seed, "wall_seconds": seconds, **self.outcome(data, run)})
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return found | ({"rankings": self.rankings(data, run)} if arm in ROWS else {})

    def rankings(self, data: Path, run: Path) -> dict[str, dict[str, float]]:
        """Return how each statistic ranks the frames of a run: the flipped ones, or where nothing unsafe is shown."""
        truth = json.loads((data / TRUTH_FILE).read_text(encoding="utf-8"))
        frames, seen = self.frames(data), read_seen_rows(run)
        assert seen is not None
        wrong = truth["flipped"] or contradicted(frames, [], truth["nothing_unsafe"])
        folds = self.folder / f"{run.name}_folds"
        measured = (run.name, self.seed) in YARDSTICK_RUNS
        out_of_fold = out_of_fold_log_odds(data, frames, folds, self.seed) if measured else None
        return ranking_figures(frames, seen, wrong, out_of_fold)

    def make_data(self, arm: str, data: Path) -> dict[str, Any]:
        """Make what an arm learns from, and say which of its images bear a wrong label, and why."""
        data.parent.mkdir(parents=True, exist_ok=True)
        source = REVIEWED.get(arm, CLEAN if arm == CLEAN_LEFT_OUT else None)
        if source is not None:
            return self.leave_out(source, data, unseen=arm == CLEAN_LEFT_OUT)
        if arm == LATE:
            settings, seed = self.settings, self.seed
            late = write_late_clips(self.demo, data, settings["train_clips"], drawn_with=settings["seed"], seed=seed)
            hidden = hidden_samples(self.demo) | late
            for script in ("extract_frames", "build_jsonl"):
                run_python([f"data_prep/{script}.py", "--data", str(data)], f"{script} of {to_root(data)}")
            return {"flipped": [], "nothing_unsafe": sorted(images_hidden(data, hidden))}
        link_data(self.demo, data)
        flipped: set[str] = set()
        if arm in SHARES:
            flipped = frames_flipped(data, SHARES[arm], self.seed)
        elif arm == WRONG_CLIPS:
            flipped = clips_on_the_wrong_side(data, CLIPS_OF_EACH_LABEL, self.seed)
        flip(data, flipped)
        return {
            "flipped": sorted(flipped),
            "nothing_unsafe": sorted(images_hidden(data, hidden_samples(self.demo))),
        }

    def leave_out(self, source: str, data: Path, *, unseen: bool) -> dict[str, Any]:
        """Make another arm's data without some of its frames: what the reviewer ticked, or the first without a look."""
        link_data(self.folder / f"{source}_data", data)
        truth = json.loads((self.folder / f"{source}_data" / TRUTH_FILE).read_text(encoding="utf-8"))
        ranked = self.ranked(self.folder / source)
        shown = ranked[: round((UNSEEN if unseen else SHOWN) * len(ranked))]
        wrong = contradicted(self.frames(data), truth["flipped"], truth["nothing_unsafe"])
        ticked = shown if unseen else [image for image in shown if image in wrong]
        listed = data / "left_out.txt"
        listed.write_text("".join(f"{image}\n" for image in ticked), encoding="utf-8")
        command = ["data_prep/build_jsonl.py", "--data", str(data), "--leave-out", str(listed)]
        run_python(command, f"leaving frames out of {to_root(data)}")
        flip(data, truth["flipped"])  # labels follow the clips' folders, which know nothing of flipped ones
        return {**truth, "left_out": ticked, "shown": len(shown)}

    def frames(self, data: Path) -> list[Frame]:
        """Return the frames of a data folder that training sees, in order."""
        return split_frames(data)[TRAIN]

    def ranked(self, run: Path) -> list[str]:
        """Return the images of the frames that a run was trained on, the most doubtful first."""
        file = run / "doubts" / "doubts.jsonl"
        if not file.is_file():
            run_python(["recipes/doubts.py", "--adapter", str(run)], f"doubts of {to_root(run)}")
        lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        return [line["image"] for line in lines if line["kind"] == "frame"]

    def train(self, data: Path, run: Path) -> float:
        """Train by the demo's recipe and evaluate on the test frames; return the seconds of the training command."""
        seconds = train_on(data, run, self.seed)
        evaluate = ["recipes/eval_qwen2vl.py", "--adapter", str(run), "--skip-base-model", "--without-frames"]
        run_python([*evaluate, "--batch-size", "16"], f"evaluating {to_root(run)}")
        return seconds

    def outcome(self, data: Path, run: Path) -> dict[str, Any]:
        """Return a run's figures on the test frames, and what its training data was."""
        report = json.loads((run / "eval" / "report.json").read_text(encoding="utf-8"))
        truth = json.loads((data / TRUTH_FILE).read_text(encoding="utf-8"))
        frames = self.frames(data)
        wrong = contradicted(frames, truth["flipped"], truth["nothing_unsafe"])
        results = report["results"]
        return {
            "frame_macro_f1": results["frame"]["macro_f1"],
            "frame_macro_f1_interval": results["frame"]["intervals"]["macro_f1"],
            "clip_macro_f1": results["clip"]["macro_f1"],
            "train_frames": len(frames),
            "wrong_frames": len(wrong),
            "left_out": len(truth.get("left_out", [])),
            "shown": truth.get("shown", 0),
        }
