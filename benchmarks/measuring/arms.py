"""What benchmarks on a GPU share: the random base and frames, arms in processes of their own, what is kept."""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.made.drawn_frames import draw_data_folder
from benchmarks.measuring.machine import with_project
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT, from_root, write_json

TRAIN_CLIPS_PER_CLASS, FEW_CLIPS_PER_CLASS = 7, 3
FEW = "few"  # the folder of the frames that small cards get: fewer than a large one, which is through them in no time

# What torch sets aside for cuBLAS a thread on cards before Hopper, 8 MiB; on an H100 it takes 32, unless told. Reading
# the variable at every product costs 35 microseconds, so where speed is the question it stays unset.
SMALL_CARD_WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8"}


def run_benchmark(
    argv: list[str],
    description: str | None,
    name: str,
    script: str,
    arms: Sequence[str],
    *,
    make: Callable[[Path, str], None] | None = None,
) -> dict[str, Any]:
    """Read a benchmark's command line, make base and frames, measure the arms asked for; return what was measured.

    It is kept in `<out>/<name>.json`; `out` is outputs/<name> by default. Base and frames are prepare's, or what `make`
    writes.
    """
    args = benchmark_parser(description, name, arms).parse_args(argv)
    out = prepared(args, make or prepare)
    return measure_arms(out / f"{name}.json", args.arms, lambda arm: measured_by(script, arm, out))


def benchmark_parser(description: str | None, name: str, arms: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of a benchmark's command line; without arms there is none to choose."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--like",
        default="Qwen/Qwen2-VL-7B-Instruct",
        help="a Hub id or a folder with config.json and the tokenizer's files (default: %(default)s)",
    )
    parser.add_argument("--out", default=f"outputs/{name}", help="folder to write (default: %(default)s)")
    if arms:
        parser.add_argument(
            "--arms", nargs="+", choices=arms, default=arms, help="what to measure (default: everything)"
        )
    return parser


def turns_parser(description: str | None, name: str, arms: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of a benchmark that times updates, and an earlier version in turns with this one."""
    parser = benchmark_parser(description, name, arms)
    parser.add_argument(
        "--blocks", type=int, default=3, help="updates that a speed is timed over (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each version (default: %(default)s)")
    parser.add_argument("--before", metavar="FOLDER", help="a checkout of commit 9264ce6, for the whole card")
    return parser


def prepared(args: argparse.Namespace, make: Callable[[Path, str], None]) -> Path:
    """Return the benchmark's folder with what its arms measure on. Raises InputError where there is no GPU."""
    check_gpu()
    out = from_root(args.out)
    make(out, args.like)
    return out


def check_gpu() -> None:
    """Raise InputError where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        raise InputError("this benchmark needs an NVIDIA GPU that torch can see")


def prepare(out: Path, like: str) -> None:
    """Write the random base and the frames, unless they are there."""
    if not (out / "base" / "model.safetensors.index.json").is_file():
        run(["benchmarks/made/random_qwen2vl.py", "--like", like, "--out", str(out / "base")])
    if not (out / "data" / "test.jsonl").is_file():
        draw_data_folder(out / "data", train_clips_per_class=TRAIN_CLIPS_PER_CLASS)


def prepare_with_few(out: Path, like: str) -> None:
    """Write what `prepare` does, and a folder of few frames, unless they are there."""
    prepare(out, like)
    if not (out / FEW / "test.jsonl").is_file():
        draw_data_folder(out / FEW, train_clips_per_class=FEW_CLIPS_PER_CLASS)


def measure_arms(file: Path, arms: Sequence[str], measure: Callable[[str], Any]) -> dict[str, Any]:
    """Measure each arm that `file` doesn't hold yet, and return what it holds then."""
    results = read_results(file)
    for arm in arms:
        if arm not in results["arms"]:
            print(f"measuring {arm}", file=sys.stderr)
            results["arms"][arm] = measure(arm)
            write_json(file, results)
    return results


def measured_by(script: str, arm: str, out: Path, *options: str) -> Any:
    """Return what `script ARM --out DIR` prints last, an arm in a process of its own."""
    return run_json([script, arm, "--out", str(out), *options])


def run_json(arguments: list[str], root: Path = PROJECT_ROOT) -> Any:
    """Return what `run` prints last, read as JSON."""
    return json.loads(run(arguments, root).splitlines()[-1])


def read_results(file: Path) -> dict[str, Any]:
    """Return what was measured before on this machine, or a fresh record. Raises InputError for another machine's."""
    if not file.is_file():
        return {"machine": machine(), "arms": {}}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if results["machine"] != machine():
        raise InputError(f"{file} was measured on {results['machine']['gpu']} with other versions; name another --out")
    return results


def machine() -> dict[str, str]:
    """Name the card and the versions that the figures were taken with."""
    import torch

    from recipes.report.contents import versions

    return {
        "gpu": torch.cuda.get_device_name(0),
        "cuda": str(torch.version.cuda),
        "cores": str(os.cpu_count()),
        **versions(),
        "os": platform.system(),
    }


def run(arguments: list[str], root: Path = PROJECT_ROOT) -> str:
    """Run Python with these arguments in a checkout's root, this one's; return its stdout, pass its stderr on."""
    environment = with_project(root, HF_HUB_DISABLE_TELEMETRY="1")
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"{arguments[0]} {arguments[1]} failed; what it said stands above")
    return done.stdout


def measure_arm(
    argv: list[str],
    description: str | None,
    arms: Mapping[str, Callable[[Path], Any]],
    *,
    as_on_small_cards: Collection[str] = (),
) -> int:
    """Read an arms script's command line, measure the one arm asked for, and print what it returns as a line of JSON.

    An arm is given the benchmark's folder, with the base and data/ in it. What it prints goes to stderr. Those of
    `as_on_small_cards` get the workspace that cuBLAS has there.
    """
    args = arm_parser(description, arms).parse_args(argv)
    if args.arm in as_on_small_cards:
        os.environ |= SMALL_CARD_WORKSPACE
    print_figures(lambda: arms[args.arm](from_root(args.out)))
    return 0


def arm_parser(description: str | None, arms: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of an arms script's command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=sorted(arms))
    parser.add_argument("--out", required=True, help="the benchmark's folder, with the base and data/")
    return parser


def print_figures(measure: Callable[[], Any]) -> None:
    """Print what an arm returns as a line of JSON, the only one on stdout: what it says meanwhile goes to stderr."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with contextlib.redirect_stdout(sys.stderr):
        figures = measure()
    print(json.dumps(figures), flush=True)
