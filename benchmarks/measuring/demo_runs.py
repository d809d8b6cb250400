"""The demo's trainings and evaluations, one an arm and a seed, by the project's own commands."""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.measuring.demo_marks import Mark, by_visibility, join_mark, read_marks
from benchmarks.measuring.machine import with_project
from benchmarks.measuring.shuffled_labels import relabelled, write_shuffled_data
from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.clips.records import Clip
from data_prep.demo.record import RECORD_FILE
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT, from_root, sha256_of_file, to_root, write_json
from data_prep.rows.jsonl import read_rows

if TYPE_CHECKING:
    from data_prep.hub.source import FramesSource
    from recipes.model.base import BaseModel

CONFIG = "recipes/configs/demo_cpu.yaml"
DATASET = "local/safe-unsafe-demo"
HF_HOME = "cache/hf"  # where make demo keeps what it pushes
TIMING_FILE = "bench_run.json"  # beside an adapter that this benchmark has trained; marks the training finished
WEIGHTED, UNWEIGHTED, SHUFFLED = ARMS = ("weighted", "unweighted", "shuffled")


@dataclass(frozen=True)
class Demo:
    """What all runs have in common. `marks` are by a clip's path below the data set's root, none for older clips."""

    data: Path
    clips: list[Clip]
    marks: dict[str, Mark]
    source: "FramesSource"
    base: "BaseModel"
    balance_labels: bool

    @property
    def recipe_arm(self) -> str:
        """The arm that is the recipe as it stands."""
        return WEIGHTED if self.balance_labels else UNWEIGHTED

    @property
    def made_from(self) -> dict[str, str]:
        """What the figures depend on, besides the code; a kept run must agree with it."""
        return {
            "dataset": self.source.id,
            "dataset_hash": self.source.content_hash,
            "config": CONFIG,
            "config_sha256": sha256_of_file(from_root(CONFIG)),
            "base_model": self.base.name,
            "base_revision": self.base.revision,
        }


def seeds_arguments(argv: list[str], description: str | None, name: str) -> argparse.Namespace:
    """Read the command line of a benchmark that trains the demo with several seeds. Raises InputError for no seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=f"outputs/{name}", help="folder to write (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default: 0 1 2)")
    parser.add_argument("--data", default="data/demo", help="the demo's data folder (default: %(default)s)")
    args = parser.parse_args(argv)
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        raise InputError(f"--seeds {' '.join(map(str, args.seeds))}: whole numbers of at least 0, each once")
    return args


def train_on(data: Path, run: Path, seed: int, *more: str) -> float:
    """Train by the demo's recipe on a data folder's rows, with no probe; return the seconds of the command."""
    recipe = ["recipes/sft_qwen2vl.py", "--config", CONFIG, "--seed", str(seed), "--output_dir", str(run)]
    flags = ["--dataset", str(data), "--linear_probe", "false", "--report_to", "none"]
    return run_python([*recipe, *flags, *more], f"training {to_root(run)}")


def open_demo(data: Path) -> Demo:
    """Open what `make demo` left. Raises InputError where it is missing, or was pushed from other data."""
    from data_prep.hub.source import open_dataset
    from recipes.model.base import find_base
    from recipes.training.settings import RecipeArguments

    settings = yaml.safe_load(from_root(CONFIG).read_text(encoding="utf-8"))
    try:
        folder, pushed = open_dataset(str(data)), open_dataset(DATASET)
        base = find_base(settings["model_name_or_path"])
    except InputError as error:
        raise InputError(f"run 'make demo' first, which leaves all that this needs ({error})") from None
    if folder.content_hash != pushed.content_hash:
        raise InputError(f"{DATASET} holds other data than {to_root(data)} does now; run 'make demo' again")
    balance_labels = settings.get("balance_labels", RecipeArguments.balance_labels)
    return Demo(data, clips_with_rows(data), read_marks(data / RECORD_FILE), pushed, base, balance_labels)


def clips_with_rows(data: Path) -> list[Clip]:
    """Return the clips that train.jsonl and test.jsonl hold frames of; build_jsonl.py leaves leaks out of train."""
    rows = [row for split in ("train", "test") for row in read_rows(data / f"{split}.jsonl")]
    folders = {PurePosixPath(row.image).parent.as_posix() for row in rows}
    return [clip for clip in read_clips(data / CLIPS_FILE) if clip.folder in folders]


def finish_run(demo: Demo, out: Path, arm: str, seed: int) -> dict[str, Any]:
    """Train and evaluate one arm with one seed, unless that is done already, and return its record.

    Raises InputError for a finished run of other data, another base or other settings.
    """
    folder = out / arm / f"seed{seed}"
    timing_file = folder / TIMING_FILE
    if not timing_file.is_file():
        remove_unfinished(folder)
        print(f"{arm}, seed {seed}: training", file=sys.stderr)
        seconds = train(demo, out, arm, seed)
        write_json(timing_file, {"made_from": demo.made_from, "wall_seconds": seconds})
    timing = json.loads(timing_file.read_text(encoding="utf-8"))
    if timing["made_from"] != demo.made_from:
        raise InputError(f"{to_root(folder)} was made from other data, base or settings; remove it, or change --out")
    report_folder = report_folder_of(demo, folder)
    if not (report_folder / "report.json").is_file():
        print(f"{arm}, seed {seed}: evaluating", file=sys.stderr)
        evaluate = ["recipes/eval_qwen2vl.py", "--adapter", str(folder), "--dataset", DATASET]
        run_python(evaluate, f"evaluating {to_root(folder)}")
    return {
        "arm": arm,
        "seed": seed,
        "folder": to_root(folder),
        "relabelled_train_clips": relabelled(demo.clips, seed) if arm == SHUFFLED else 0,
        "training_seconds": {
            "wall": timing["wall_seconds"],
            "train_runtime": json.loads((folder / "training.json").read_text(encoding="utf-8"))["seconds"],
        },
        **run_record(report_folder, demo),
    }


def remove_unfinished(folder: Path) -> None:
    """Remove a run that was cut off: the seconds of a resumed one would say nothing.

    Raises InputError where the folder holds a finished adapter, which some other command has trained.
    """
    from recipes.adapter.safety_record import is_finished

    if is_finished(folder):
        raise InputError(f"{to_root(folder)} holds a finished run without {TIMING_FILE}; move it away, or change --out")
    shutil.rmtree(folder, ignore_errors=True)


def train(demo: Demo, out: Path, arm: str, seed: int) -> float:
    """Train one arm with one seed through `accelerate launch`; return the seconds that the whole command took."""
    folder = out / arm / f"seed{seed}"
    if arm == SHUFFLED:
        data = out / "shuffled_data" / f"seed{seed}"
        write_shuffled_data(demo.data, demo.clips, data, seed=seed)
        flags = ["--dataset", str(data)]
    else:
        flags = ["--balance_labels", "true" if arm == WEIGHTED else "false"]
    launch = [
        "-m",
        "accelerate.commands.accelerate_cli",
        "launch",
        "--quiet",
        "--config_file",
        "accelerate_config.yaml",
    ]
    recipe = ["recipes/sft_qwen2vl.py", "--config", CONFIG, "--seed", str(seed), "--output_dir", str(folder)]
    return run_python([*launch, *recipe, *flags], f"training {to_root(folder)}")


def run_python(arguments: list[str], doing: str) -> float:
    """Run Python with these arguments in the project's root; return its seconds. What it prints goes to stderr."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        env=with_project(),
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        raise InputError(f"{doing} failed with exit status {done.returncode}; what it said stands above")
    return time.perf_counter() - begin


def report_folder_of(demo: Demo, folder: Path) -> Path:
    """Return where eval_qwen2vl.py puts its report of the true test split for the adapter in `folder`."""
    from recipes.adapter.safety_record import read_record
    from recipes.report.folder import folder_of_report

    return folder_of_report(folder, read_record(folder), demo.source, "test")


def run_record(report_folder: Path, demo: Demo) -> dict[str, Any]:
    """Return what one evaluation says: its figures, and which frames it got wrong."""
    report = json.loads((report_folder / "report.json").read_text(encoding="utf-8"))
    lines = (report_folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    frames = [join_mark(json.loads(line), demo.clips, demo.marks) for line in lines]
    return {
        **{name: report[name] for name in ("results", "confusion_matrix", "baselines")},
        "by_visibility": by_visibility(frames),
        "wrong_frames": [frame for frame in frames if frame["answer"] != frame["label"]],
    }
