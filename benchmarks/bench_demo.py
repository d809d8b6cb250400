"""Give the demo's exact figures, seed by seed: both row weightings, and a control that learns from shuffled labels.

    python benchmarks/bench_demo.py --out outputs/bench_demo --seeds 0 1 2

It wants what `make demo` leaves: the data folder and the data set pushed from it. Each run is trained and evaluated by
the project's own commands, as a user would, and all of them on the true test split. The control is the recipe on the
same frames with the training clips' labels dealt out anew at random: what it scores is what the job gives where there
is nothing to learn. Run again, it keeps the runs that are finished.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.measuring.machine import cpu_name, with_project
from data_prep.clips.jsonl import CLIPS_FILE, read_clips, write_clips
from data_prep.clips.records import Clip, frame_name
from data_prep.console import run_script
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT, from_root, hold_lock, sha256_of_file, to_root, write_json
from data_prep.rows.jsonl import Row, read_rows, write_rows

if TYPE_CHECKING:
    from data_prep.hub.source import FramesSource
    from recipes.model.base import BaseModel

SCHEMA_VERSION = 1
CONFIG = "recipes/configs/demo_cpu.yaml"
DATASET = "local/safe-unsafe-demo"
HF_HOME = "cache/hf"  # where make demo keeps what it pushes
MARKS_FILE = "demo_clips.json"  # written by make_demo_clips.py
TIMING_FILE = "bench_run.json"  # beside an adapter that this benchmark has trained; marks the training finished
WEIGHTED, UNWEIGHTED, SHUFFLED = ARMS = ("weighted", "unweighted", "shuffled")
FIGURES = {
    "frame_macro_f1": ("results", "frame", "macro_f1"),
    "clip_macro_f1": ("results", "clip", "macro_f1"),
    "frame_balanced_accuracy": ("results", "frame", "balanced_accuracy"),
    "clip_balanced_accuracy": ("results", "clip", "balanced_accuracy"),
    "wall_seconds": ("training_seconds", "wall"),
}


@dataclass(frozen=True)
class Mark:
    """What the generator says of a clip: how many leading samples don't show its behaviour yet, and what it copies."""

    hidden_samples: int
    copy_of: str | None


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


def main(argv: list[str]) -> int:
    """Train and evaluate every arm with every seed, write bench_demo.json and print its headline."""
    args = parse_arguments(argv)
    # As the Makefile has it. Set before huggingface_hub is first imported, which is when it is read.
    os.environ.setdefault("HF_HOME", str(from_root(HF_HOME)))
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    out = from_root(args.out)
    demo = open_demo(from_root(args.data))
    out.mkdir(parents=True, exist_ok=True)
    with hold_lock(out / ".lock", f"another benchmark is at work in {to_root(out)}; wait or end it"):
        runs = [finish_run(demo, out, arm, seed) for seed in args.seeds for arm in ARMS]
        results = {
            "schema_version": SCHEMA_VERSION,
            "machine": machine(),
            "made_from": demo.made_from,
            "recipe_arm": demo.recipe_arm,
            "seeds": args.seeds,
            "runs": runs,
            "summary": summarise(runs),
        }
        write_json(out / "bench_demo.json", results)
    print(as_table(results))
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/bench_demo", help="folder to write (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default: 0 1 2)")
    parser.add_argument("--data", default="data/demo", help="the demo's data folder (default: %(default)s)")
    args = parser.parse_args(argv)
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        raise InputError(f"--seeds {' '.join(map(str, args.seeds))}: whole numbers of at least 0, each once")
    return args


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
    return Demo(data, clips_with_rows(data), read_marks(data / MARKS_FILE), pushed, base, balance_labels)


def clips_with_rows(data: Path) -> list[Clip]:
    """Return the clips that train.jsonl and test.jsonl hold frames of; build_jsonl.py leaves leaks out of train."""
    rows = [row for split in ("train", "test") for row in read_rows(data / f"{split}.jsonl")]
    folders = {PurePosixPath(row.image).parent.as_posix() for row in rows}
    return [clip for clip in read_clips(data / CLIPS_FILE) if clip.folder in folders]


def read_marks(path: Path) -> dict[str, Mark]:
    """Read what the generator says of each clip, by the clip's path. Nothing where there is no file or it says none."""
    if not path.is_file():
        return {}
    clips = json.loads(path.read_text(encoding="utf-8"))["clips"]
    return {name: Mark(of["hidden_samples"], of["copy_of"]) for name, of in clips.items() if isinstance(of, dict)}


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
        write_shuffled_data(demo, data, seed)
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
    from recipes.report.contents import folder_of_report

    return folder_of_report(folder, read_record(folder), demo.source, "test")


def shuffle_labels(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """Return the clips, in order, with the source classes of those of train dealt out anew at random.

    A clip's label follows its class, so a clip stays whole, each label keeps its number of clips, and what validation
    is cut from train is shuffled too: the best checkpoint must not be chosen by true labels. Test is untouched.
    """
    train = [clip for clip in clips if clip.split == "train"]
    classes = [(clip.source_class, clip.label) for clip in train]
    random.Random(seed).shuffle(classes)
    dealt = iter(classes)
    shuffled = []
    for clip in clips:
        source_class, label = next(dealt) if clip.split == "train" else (clip.source_class, clip.label)
        shuffled.append(replace(clip, source_class=source_class, label=label))
    return shuffled


def relabelled(clips: Sequence[Clip], seed: int) -> int:
    """Return how many clips bear another label once shuffled; about a third, where four in five are UNSAFE."""
    return sum(old.label != new.label for old, new in zip(clips, shuffle_labels(clips, seed), strict=True))


def write_shuffled_data(demo: Demo, folder: Path, seed: int) -> None:
    """Write a data folder with the demo's frames under shuffled labels, whole or not at all.

    Frames move to where their new label wants them. They are copied: a link that leads out of a data folder is refused.
    """
    shuffled = shuffle_labels(demo.clips, seed)
    clip_of_folder = {old.folder: new for old, new in zip(demo.clips, shuffled, strict=True)}
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    for left in (unfinished, folder):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for split in ("train", "test"):
        rows = read_rows(demo.data / f"{split}.jsonl")
        moved = [move_row(row, clip_of_folder) for row in rows]
        for old, new in zip(rows, moved, strict=True):
            (unfinished / new.image).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(demo.data / old.image, unfinished / new.image)
        write_rows(unfinished / f"{split}.jsonl", moved)
    write_clips(unfinished / CLIPS_FILE, shuffled)
    unfinished.rename(folder)


def move_row(row: Row, clip_of_folder: Mapping[str, Clip]) -> Row:
    """Return a row as its clip's new record wants it: the image's folder and the response follow the label."""
    image = PurePosixPath(row.image)
    clip = clip_of_folder[image.parent.as_posix()]
    return replace(row, image=f"{clip.folder}/{image.name}", response=clip.label)


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


def join_mark(prediction: Mapping[str, Any], clips: Sequence[Clip], marks: Mapping[str, Mark]) -> dict[str, Any]:
    """Return a prediction of the test split with its image's path and its clip's mark.

    `hidden` says whether the frame is of the seconds before the behaviour shows, None where that isn't known: marks are
    of samples at one a second.
    """
    (clip,) = [clip for clip in clips if clip.split == "test" and clip.video_id == prediction["clip"]]
    mark = marks.get(clip.path)
    return {
        "image": f"{clip.folder}/{frame_name(prediction['sample'])}",
        **prediction,
        "hidden": None if mark is None or clip.settings.fps != 1 else prediction["sample"] < mark.hidden_samples,
        "copy_of": None if mark is None else mark.copy_of,
    }


def by_visibility(frames: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]] | None:
    """Count frames, and wrong ones among them, by whether the behaviour shows; None where that isn't known of all."""
    if any(frame["hidden"] is None for frame in frames):
        return None
    counts = {}
    for name, hidden in (("hidden", True), ("visible", False)):
        answers = [frame["answer"] == frame["label"] for frame in frames if frame["hidden"] is hidden]
        counts[name] = {"n": len(answers), "wrong": answers.count(False)}
    return counts


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return each figure's median and its value by seed: of every arm, and of weighted less unweighted by seed."""
    by_arm = {
        arm: {figure: {run["seed"]: figure_of(run, figure) for run in runs if run["arm"] == arm} for figure in FIGURES}
        for arm in ARMS
    }
    differences = {
        figure: {
            seed: None if one is None or other is None else one - other
            for (seed, one), other in zip(
                by_arm[WEIGHTED][figure].items(), by_arm[UNWEIGHTED][figure].values(), strict=True
            )
        }
        for figure in FIGURES
    }
    return {
        "arms": {arm: {name: with_median(values) for name, values in by_arm[arm].items()} for arm in ARMS},
        "weighted_minus_unweighted": {name: with_median(values) for name, values in differences.items()},
    }


def figure_of(run: Mapping[str, Any], figure: str) -> float | None:
    """Return one of FIGURES of a run, None where the data don't define it."""
    value: Any = run
    for key in FIGURES[figure]:
        value = None if value is None else value[key]
    return value


def with_median(by_seed: Mapping[int, float | None]) -> dict[str, Any]:
    """Return values by seed, as JSON names them, with their median; a median of undefined values is None."""
    known = [value for value in by_seed.values() if value is not None]
    return {
        "median": median(known) if len(known) == len(by_seed) else None,
        "by_seed": {str(seed): value for seed, value in by_seed.items()},
    }


def machine() -> dict[str, Any]:
    """Name the processor and the versions that the figures were taken with."""
    from joblib import cpu_count

    from recipes.report.contents import versions

    return {"cpu": cpu_name(), "cores": cpu_count(), "os": platform.system(), **versions()}


def as_table(results: Mapping[str, Any]) -> str:
    """Lay out medians and each seed's value as text: every arm, their differences, and what learns nothing."""
    summary, seeds = results["summary"], [f"seed {seed}" for seed in results["seeds"]]
    lines = [table_line("", "", ["median", *seeds])]
    for arm in ARMS:
        name = f"{arm}, the recipe" if arm == results["recipe_arm"] else arm
        lines += table_block(f"{name} labels" if arm == SHUFFLED else name, summary["arms"][arm])
    lines += table_block("weighted - unweighted", summary["weighted_minus_unweighted"])
    baselines = results["runs"][0]["baselines"]
    for name, key in (("base model, no adapter", "base_model"), ("always UNSAFE", "always_unsafe")):
        for figure in ("macro_f1", "balanced_accuracy"):
            cell = number(baselines[key]["frame"][figure], figure)
            lines.append(table_line(name if figure == "macro_f1" else "", f"frame_{figure}", [cell]))
    return "\n".join(lines)


def table_block(name: str, figures: Mapping[str, Any]) -> list[str]:
    """Lay out the figures of one arm, a line each."""
    return [
        table_line(
            name if position == 0 else "",
            figure,
            [number(value, figure) for value in (values["median"], *values["by_seed"].values())],
        )
        for position, (figure, values) in enumerate(figures.items())
    ]


def table_line(name: str, figure: str, cells: Sequence[str]) -> str:
    """Lay out one line of the table."""
    figure = figure.replace("_", " ").replace("f1", "F1")
    return (f"{name:<24}{figure:<26}" + "".join(f"{cell:>9}" for cell in cells)).rstrip()


def number(value: float | None, figure: str) -> str:
    """Write a figure with three decimals, seconds with one, `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:.1f}" if figure == "wall_seconds" else f"{value:.3f}"


if __name__ == "__main__":
    run_script(main)
