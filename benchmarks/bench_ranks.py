"""Measure several processes beside one: training at 16 frames a card and at 16 in all, a scoring pass, bytes an update.

    python benchmarks/bench_ranks.py --like Qwen/Qwen2-VL-7B-Instruct --out outputs/bench_ranks --processes 1 2 4
    python benchmarks/bench_ranks.py --size small --out outputs/bench_ranks_small --processes 1 2

The 7B's weights are random and the 1920x1080 frames drawn: speed is the model's own. It needs as many GPUs of 80 GB on
one host as the most processes, 8 CPU cores for each and 40 GB of disk. The second form takes the small base that ships
with the project to a CPU, whose cores processes have to share: it shows that all of it works, and how much is sent.
Each number of processes is measured once, one after the other; run again, it keeps those that are finished.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.made.drawn_frames import draw_data_folder
from benchmarks.measuring import arms, machine
from benchmarks.measuring.service_process import free_port
from data_prep.console import run_script
from data_prep.errors import InputError, check_at_least
from data_prep.files import PROJECT_ROOT, from_root, write_json

SCRIPT = "benchmarks/arms/ranks.py"
LAUNCHER = ["-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "--multi_gpu"]
CLIPS_PER_CLASS = {"full": arms.TRAIN_CLIPS_PER_CLASS, "small": 2}
SMALL_BASE = PROJECT_ROOT / "tiny_base" / "weights"

# Two A1000s on two machines, 16 frames an update: seconds a frame are what the plan for one projects, the adapter's
# gradients are sent in bf16, and TCP leaves so much of a wire of 1 Gb/s.
A1000_SECONDS, A1000_FRAMES, A1000_BYTES, WIRE_BYTES = 0.82, 16, 2 * 40_370_176, 0.94 * 1e9 / 8


def main(argv: list[str]) -> int:
    """Make base and frames, measure each number of processes, write bench_ranks.json, print a table and its JSON."""
    args = parse_arguments(argv)
    out = from_root(args.out)
    prepare(args, out)
    file = out / "bench_ranks.json"
    results = read(file, args.size)
    for processes in args.processes:
        if str(processes) not in results["processes"]:
            print(f"measuring {processes} processes", file=sys.stderr)
            results["processes"][str(processes)] = measured(args, out, processes)
            write_json(file, results)
    print(as_table(results))
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = arms.benchmark_parser(__doc__, "bench_ranks", ())
    parser.add_argument("--size", choices=("full", "small"), default="full", help="of the base (default: %(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many (default: 1 and 2)")
    parser.add_argument("--frames", type=int, default=2000, help="frames of the scoring pass (default: %(default)s)")
    args = parser.parse_args(argv)
    for number in args.processes:
        check_at_least("--processes", number, 1)
    check_at_least("--frames", args.frames, 1)
    return args


def prepare(args: argparse.Namespace, out: Path) -> None:
    """Write base and frames, unless they are there. Raises InputError where there are too few GPUs."""
    if args.size == "full":
        import torch

        if torch.cuda.device_count() < max(args.processes):
            raise InputError(f"--processes {max(args.processes)}: torch sees {torch.cuda.device_count()} GPUs")
        arms.prepare(out, args.like)
        return
    if not (out / "base").is_dir():
        shutil.copytree(SMALL_BASE, out / "base")
    if not (out / "data" / "test.jsonl").is_file():
        draw_data_folder(out / "data", train_clips_per_class=CLIPS_PER_CLASS["small"])


def read(file: Path, size: str) -> dict[str, Any]:
    """Return what was measured before, or a fresh record. Raises InputError for another machine's or size's."""
    here = {"size": size, "machine": arms.machine() if size == "full" else machine.machine()}
    if not file.is_file():
        return {**here, "processes": {}}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if {name: results[name] for name in here} != here:
        raise InputError(f"{file} was measured on another machine, or another size; name another --out")
    return results


def measured(args: argparse.Namespace, out: Path, processes: int) -> dict[str, Any]:
    """Return what so many processes measure together. Raises InputError where they fail."""
    launcher = [*LAUNCHER, "--num_processes", str(processes), "--main_process_port", str(free_port())]
    command = [sys.executable, *(launcher if processes > 1 else []), SCRIPT, args.size]
    command += ["--out", str(out), "--frames", str(args.frames)]
    environment = machine.with_project(HF_HUB_DISABLE_TELEMETRY="1")
    if processes == 1:  # which trains on one card, and is refused where it sees several
        environment["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise InputError(f"{processes} processes failed; what they said stands above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def as_table(results: dict[str, Any]) -> str:
    """Lay out what was measured beside one process, where that was measured, one line of JSON last."""
    found = results["processes"]
    alone = found.get("1")
    lines = [f"{'':<12}{'16 each':>22}{'16 in all':>22}{'as a graph':>22}{'scoring':>22}{'an update sends':>28}"]
    for number, figures in found.items():
        one = alone and alone["each"]["frames_per_second"]
        cells = [_rate(figures.get(name), one) for name in ("each", "in_all", "in_all_graph")]
        cells.append(_times(figures["scoring"]["frames_per_second"], alone and alone["scoring"]["frames_per_second"]))
        summed = figures["sum"]
        sent = f"{summed['bytes'] / 1e6:.1f} MB in {summed['milliseconds']:.1f} ms"
        lines.append(f"{number:<12}" + "".join(f"{cell:>22}" for cell in cells) + f"{sent:>28}")
    several = [each for each in found.values() if each["processes"] > 1]
    for each in several:
        alone_at_once = ", ".join(f"{rate:.2f}" for rate in each.get("alone_at_once", []))
        lines.append(f"{each['processes']} processes, each by itself at once: {alone_at_once or 'not measured'}")
        lines.append(
            f"{each['processes']} processes: {each['sum']['sent_bytes_a_process'] / 1e6:.1f} MB sent by each over "
            f"loopback, {each['sum']['milliseconds_on_host']:.1f} ms; a sum in bf16 is {each['sending_error']:.1e} off"
        )
    return "\n".join([*lines, wire_line(), json.dumps(results)])


def _rate(measured: dict[str, Any] | None, alone: float | None) -> str:
    """Return the frames a second of one process, and what share that is of one that is alone."""
    if measured is None:
        return "-"
    rate = measured["frames_per_second"]
    return f"{rate:.2f}" + (f" ({rate / alone:.1%})" if alone else "")


def _times(rate: float, alone: float | None) -> str:
    return f"{rate:.2f}" + (f" ({rate / alone:.2f} times)" if alone else "")


def wire_line() -> str:
    """Return the arithmetic of two small cards on two machines: what is left of their speed at 16 frames an update."""
    computing, sending = A1000_SECONDS * A1000_FRAMES / 2, A1000_BYTES / WIRE_BYTES
    at_once, in_turns = (computing / (computing + times * sending) for times in (1, 2))
    each_way = f"{A1000_BYTES / 1e6:.0f} MB each way {sending:.2f} s"
    return (
        f"two A1000s at 1 Gb/s: {A1000_FRAMES // 2} frames each take {computing:.1f} s, {each_way}: "
        f"{at_once:.0%} of their speed, {in_turns:.0%} where one way waits for the other"
    )


if __name__ == "__main__":
    run_script(main)
