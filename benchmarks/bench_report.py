"""Time a report, from scores to files, and the fit of the linear probe, and say what memory they take as data grow.

    python benchmarks/bench_report.py --out outputs/bench_report

It draws scored frames, ten a clip, and pooled features, a normal distribution a column, and measures each size in a
process of its own. With `--before FOLDER`, a checkout of an earlier version is measured in turns with this one on the
same data; one that holds all features in memory several times is given no more than `--before-frames`.
"""

import argparse
import io
import json
import os
import platform
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from joblib import cpu_count
from PIL import Image

from benchmarks.measuring.machine import cpu_name
from data_prep.console import run_script
from data_prep.files import PROJECT_ROOT, from_root, write_json
from data_prep.labels import LABELS, SOURCE_CLASSES, UNSAFE
from data_prep.rows.dataset import frame_features
from recipes.metrics.threshold import PLAIN_THRESHOLD

FRAMES_A_CLIP = 10
SKILLS = {"adapter": 2.0, "base_model": 0.2, "linear_probe": 1.2}  # of a clip's own lean, in logits
PACKAGES = ("numpy", "scipy", "scikit-learn", "datasets", "matplotlib")
Arm = tuple[str, str, int]


def main(argv: list[str]) -> int:
    """Draw the data, measure every size in turns, write bench_report.json, print a table, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/bench_report", help="folder to write (default: %(default)s)")
    parser.add_argument("--frames", type=int, nargs="+", default=[10_000, 100_000], help="of a report")
    parser.add_argument("--probe-frames", type=int, nargs="+", default=[20_000, 100_000, 500_000], help="of a probe")
    parser.add_argument("--hidden", type=int, default=3584, help="features a frame (default: %(default)s, the 7B's)")
    parser.add_argument("--rounds", type=int, default=3, help="times a report is made (default: %(default)s)")
    parser.add_argument("--probe-rounds", type=int, default=1, help="times a probe is fitted (default: %(default)s)")
    parser.add_argument("--before", metavar="FOLDER", help="a checkout of an earlier version")
    parser.add_argument("--before-frames", type=int, default=100_000, help="most of its probe (default: %(default)s)")
    args = parser.parse_args(argv)
    out = from_root(args.out)
    versions = {"now": PROJECT_ROOT, **({"before": from_root(args.before)} if args.before else {})}
    taken: dict[Arm, list[dict[str, Any]]] = defaultdict(list)
    for frames in args.frames:
        draw(out / f"frames_{frames}", frames)
        for _ in range(args.rounds):
            for name, root in versions.items():
                work = ["report", "--data", str(out / f"frames_{frames}"), "--out", str(out / f"report_{name}")]
                taken["report", name, frames].append(measured(root, work))
    for frames in args.probe_frames:
        for _ in range(args.probe_rounds):
            for name, root in versions.items():
                if name == "now" or frames <= args.before_frames:
                    work = ["probe", "--frames", str(frames), "--hidden", str(args.hidden), "--out", str(out)]
                    taken["probe", name, frames].append(measured(root, work))
    results = {
        "schema_version": 1,
        "machine": machine(),
        "before": Path(args.before).name if args.before else None,
        "frames_a_clip": FRAMES_A_CLIP,
        "hidden": args.hidden,
        "arms": [summary(*arm, runs) for arm, runs in taken.items()],
    }
    write_json(out / "bench_report.json", results)
    print(as_table(results))
    print(json.dumps(results))
    return 0


def draw(folder: Path, frames: int) -> None:
    """Write scored frames, as report_arms.py reads them, unless they are there: clips that lean to their own side."""
    from datasets import Dataset

    if (folder / "scores.npz").is_file():
        return
    rng, clips = np.random.default_rng(0), frames // FRAMES_A_CLIP
    classes = [SOURCE_CLASSES[number] for number in rng.integers(0, len(SOURCE_CLASSES), clips)]
    truth = np.array([each.label == UNSAFE for each in classes])
    scores: dict[str, Any] = {}
    for name, skill in SKILLS.items():
        of_clip = skill * (2 * truth - 1) + 1.5 * rng.normal(size=clips)
        logits = np.repeat(of_clip, FRAMES_A_CLIP) + 0.4 * rng.normal(size=frames)
        scores[name] = 1 / (1 + np.exp(-logits))
    picture = io.BytesIO()
    Image.effect_noise((64, 36), 40).convert("RGB").save(picture, format="JPEG")
    of_frame = np.repeat(np.arange(clips), FRAMES_A_CLIP)
    columns = {
        "image": [{"bytes": picture.getvalue(), "path": None}] * frames,
        "prompt": ["SAFE or UNSAFE?"] * frames,
        "response": [classes[clip].label for clip in of_frame],
        "clip": [f"{classes[clip].folder[0]}_te{clip}" for clip in of_frame],
        "sample": list(range(FRAMES_A_CLIP)) * clips,
        "source_class": [classes[clip].folder for clip in of_frame],
    }
    Dataset.from_dict(columns, features=frame_features()).save_to_disk(str(folder / "test"))
    write_json(folder / "safety.json", record())
    np.savez(folder / "scores.npz", **scores)


def record() -> dict[str, Any]:
    """Return a safety.json for frames that no adapter was asked about."""
    names = ("base_model", "base_revision", "dataset", "dataset_hash")
    settings = {"dtype": "bfloat16", "load_in_4bit": True, "dataset_revision": None, "seed": 0, "max_pixels": 100352}
    answering = {"threshold": PLAIN_THRESHOLD, "threshold_from": "fixed", "training_prior": 0.5}
    asking = {"prompt": "SAFE or UNSAFE?", "labels": list(LABELS)}
    return {**asking, **dict.fromkeys(names, "drawn"), **settings, **answering}


def measured(root: Path, work: list[str]) -> dict[str, Any]:
    """Return what report_arms.py measures of the version of the project that lies in `root`."""
    print(f"{root.name}: {' '.join(work)}", file=sys.stderr)
    script = str(PROJECT_ROOT / "benchmarks" / "report_arms.py")
    done = subprocess.run(
        [sys.executable, script, *work],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(what: str, name: str, frames: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of a size's runs, the fastest and the slowest whole, and the most memory that any took."""
    whole = [round(sum(run["seconds"].values()), 2) for run in runs]
    return {
        "what": what,
        "version": name,
        "frames": frames,
        "runs": len(runs),
        "seconds": {step: median(run["seconds"][step] for run in runs) for step in runs[0]["seconds"]},
        "whole_seconds": {"median": median(whole), "least": min(whole), "most": max(whole)},
        "imports_gb": round(max(run["imports_gb"] for run in runs), 2),
        "peak_gb": round(max(run["peak_gb"] for run in runs), 2),
    }


def machine() -> dict[str, Any]:
    """Say where this ran, and with which versions."""
    threads = os.environ.get("OMP_NUM_THREADS")
    packages = {package: version(package) for package in PACKAGES}
    return {
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "omp_num_threads": threads,
        "python": platform.python_version(),
        **packages,
    }


def as_table(results: dict[str, Any]) -> str:
    """Lay the sizes out as Markdown: this version, and the earlier one where it was measured."""
    arms = {(arm["what"], arm["version"], arm["frames"]): arm for arm in results["arms"]}
    lines = ["| | s | peak, GB | s before | peak before, GB |", "|---|---:|---:|---:|---:|"]
    for (what, name, frames), arm in arms.items():
        if name == "now":
            before = arms.get((what, "before", frames))
            lines.append(f"| {what}, {frames:,} frames | {_cells(arm)} | {_cells(before) if before else '- | -'} |")
    return "\n".join(lines)


def _cells(arm: dict[str, Any]) -> str:
    return f"{arm['whole_seconds']['median']:.1f} | {arm['peak_gb']:.2f}"


if __name__ == "__main__":
    run_script(main)
