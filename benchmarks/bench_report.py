"""Time a report, from scores to files, and the fit of the linear probe, and say what memory they take as data grow.

    python benchmarks/bench_report.py --out outputs/bench_report

It draws scored frames, ten a clip, and pooled features, a normal distribution a column, and measures each size in a
process of its own. With `--before FOLDER`, a checkout of an earlier version is measured in turns with this one on the
same data, each by its own arms/report.py; one that holds all features in memory several times is given no more than
`--before-frames`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.made.scored_frames import FRAMES_A_CLIP, draw_scored_frames
from benchmarks.measuring.checkouts import checkouts
from benchmarks.measuring.machine import machine_with
from data_prep.console import run_script
from data_prep.files import from_root, write_json

SCRIPT = "benchmarks/arms/report.py"
PACKAGES = ("numpy", "scipy", "scikit-learn", "datasets", "matplotlib")
Arm = tuple[str, str, int]


def main(argv: list[str]) -> int:
    """Draw the data, measure every size in turns, write bench_report.json, print a table, JSON last."""
    args = parse_arguments(argv)
    out = from_root(args.out)
    versions = checkouts(args.before, measured_by=SCRIPT)
    taken: dict[Arm, list[dict[str, Any]]] = defaultdict(list)
    for frames in args.frames:
        data = out / f"frames_{frames}"
        draw_scored_frames(data, frames)
        for name, root in in_turns(versions, args.rounds):
            work = ["report", "--data", str(data), "--out", str(out / f"report_{name}")]
            taken["report", name, frames].append(measured(root, work))
    for frames in args.probe_frames:
        for name, root in in_turns(versions, args.probe_rounds):
            if name == "now" or frames <= args.before_frames:
                work = ["probe", "--frames", str(frames), "--hidden", str(args.hidden), "--out", str(out)]
                taken["probe", name, frames].append(measured(root, work))
    results = {
        "schema_version": 1,
        "machine": {**machine_with(*PACKAGES), "omp_num_threads": os.environ.get("OMP_NUM_THREADS")},
        "before": Path(args.before).name if args.before else None,
        "frames_a_clip": FRAMES_A_CLIP,
        "hidden": args.hidden,
        "arms": [summary(*arm, runs) for arm, runs in taken.items()],
    }
    write_json(out / "bench_report.json", results)
    print(as_table(results))
    print(json.dumps(results))
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/bench_report", help="folder to write (default: %(default)s)")
    parser.add_argument("--frames", type=int, nargs="+", default=[10_000, 100_000], help="of a report")
    parser.add_argument("--probe-frames", type=int, nargs="+", default=[20_000, 100_000, 500_000], help="of a probe")
    parser.add_argument("--hidden", type=int, default=3584, help="features a frame (default: %(default)s, the 7B's)")
    parser.add_argument("--rounds", type=int, default=3, help="times a report is made (default: %(default)s)")
    parser.add_argument("--probe-rounds", type=int, default=1, help="times a probe is fitted (default: %(default)s)")
    parser.add_argument("--before", metavar="FOLDER", help="a checkout of an earlier version")
    parser.add_argument("--before-frames", type=int, default=100_000, help="most of its probe (default: %(default)s)")
    return parser.parse_args(argv)


def in_turns(versions: dict[str, Path], rounds: int) -> Iterator[tuple[str, Path]]:
    """Give every version its turn, round after round, so that a slow minute meets all."""
    for _ in range(rounds):
        yield from versions.items()


def measured(root: Path, work: list[str]) -> dict[str, Any]:
    """Return what the version of the project that lies in `root` measures of itself."""
    print(f"{root.name}: {' '.join(work)}", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, SCRIPT, *work],
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
