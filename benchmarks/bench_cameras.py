"""How well an adapter does on a camera that it never saw: each camera in turn is the test split, the others train.

    python benchmarks/bench_cameras.py --data data/plant --config recipes/configs/demo_cpu.yaml

It trains and evaluates once a camera with the project's own commands, and prints a table. What stands behind `--` goes
to training: `-- --num_train_epochs 2`. Started again, it keeps what is finished.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring.demo_runs import run_python
from benchmarks.measuring.machine import machine
from data_prep.clips.jsonl import CLIPS_FILE, read_finished_clips
from data_prep.clips.records import natural_key
from data_prep.console import run_script
from data_prep.errors import InputError
from data_prep.files import check_writable, from_root, to_root, write_json

LAUNCH = ["-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "--config_file", "accelerate_config.yaml"]
FIGURES = ("macro_f1", "balanced_accuracy", "recall", "auroc")


def main(argv: list[str]) -> int:
    """Train and evaluate once a camera, and print a table of the figures, with intervals over clips."""
    args, training = parse_arguments(argv)
    data, out = from_root(args.data), from_root(args.out)
    known = cameras_of(data)
    if unknown := sorted(set(args.cameras or []) - set(known)):
        raise InputError(f"--cameras {unknown[0]}: not a camera of {args.data}; known: {', '.join(known) or 'none'}")
    if len(known) < 2:
        raise InputError(
            f"{args.data}: {len(known)} cameras are known, and leaving one out takes two; see docs/data.md"
        )
    check_writable(out)
    rows = [held_out(args, known.index(camera) + 1, camera, out, training) for camera in args.cameras or known]
    write_json(out / "cameras.json", {"schema_version": 1, "machine": machine(), "data": args.data, "cameras": rows})
    print(as_table(rows))
    print(f"figures: {to_root(out / 'cameras.json')}", file=sys.stderr)
    return 0


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return this script's arguments, and what stands behind `--`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="data folder whose clips have cameras (default: %(default)s)")
    parser.add_argument("--config", required=True, help="recipe to train with")
    parser.add_argument("--cameras", nargs="+", help="of the data's; each of them if not given")
    parser.add_argument("--out", default="outputs/bench_cameras", help="folder to write (default: %(default)s)")
    parser.add_argument("--repo-prefix", default="local/without-camera", help="of the ids that are pushed")
    at = argv.index("--") if "--" in argv else len(argv)
    return parser.parse_args(argv[:at]), argv[at + 1 :]


def cameras_of(data: Path) -> list[str]:
    """Return the cameras of a data folder's clips, in natural order."""
    clips = read_finished_clips(data / CLIPS_FILE)
    return sorted({clip.camera for clip in clips if clip.camera is not None and clip.has_frames}, key=natural_key)


def held_out(args: argparse.Namespace, number: int, camera: str, out: Path, training: list[str]) -> dict[str, Any]:
    """Return the figures of an adapter on the camera that it didn't see, trained and evaluated first."""
    print(f"{camera} is held out", file=sys.stderr)
    repo_id, run = f"{args.repo_prefix}-{number}", out / f"without-{number}"
    push = ["--data", args.data, "--repo-id", repo_id, "--test-camera", camera]
    run_python(["data_prep/push_dataset.py", *push], f"pushing {repo_id}")
    settings = ["--config", args.config, "--dataset", repo_id, "--output_dir", str(run), "--resume", *training]
    run_python([*LAUNCH, "recipes/sft_qwen2vl.py", *settings], f"training {to_root(run)}")
    evaluate = ["--adapter", str(run), "--skip-base-model"]
    run_python(["recipes/eval_qwen2vl.py", *evaluate], f"evaluating {to_root(run)}")
    report = json.loads((run / "eval" / "report.json").read_text(encoding="utf-8"))
    frame = report["results"]["frame"]
    probe = (report["baselines"]["linear_probe"] or {}).get("frame") or {}
    return {
        "camera": camera,
        "run": to_root(run),
        "clips": sum(row["clips"] for row in report["per_camera"].values()),
        "frames": frame["n"],
        **{name: frame[name] for name in FIGURES},
        "intervals": {name: frame["intervals"][name] for name in FIGURES},
        "probe_macro_f1": probe.get("macro_f1"),
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """Lay the cameras out as Markdown."""
    lines = [
        "| held out | clips | frames | macro-F1 | 95 % interval | balanced accuracy | recall | AUROC | the probe's |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        bounds = row["intervals"]["macro_f1"]
        cells = [row["camera"], row["clips"], row["frames"], _number(row["macro_f1"])]
        cells += [f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "-"]
        cells += [_number(row[name]) for name in ("balanced_accuracy", "recall", "auroc", "probe_macro_f1")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    run_script(main)
