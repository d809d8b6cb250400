"""Take five training steps with the 7B at full size and answer one frame: peak memory and seconds.

    python benchmarks/smoke_7b.py --like Qwen/Qwen2-VL-7B-Instruct --out outputs/smoke_7b

The weights are random and the 1920x1080 frames are drawn, so memory and speed are the model's own and the answers mean
nothing. It runs the project's commands as a user would: `accelerate launch recipes/sft_qwen2vl.py` with the 8 GB
recipe, then infer.py. A GPU with at least 8 GB and 35 GB of disk are needed.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.drawn_frames import draw_data_folder
from benchmarks.surroundings import with_project
from data_prep.errors import InputError, run_script
from data_prep.files import PROJECT_ROOT, from_root, to_root, write_json

STEPS = 5
MICRO_BATCHES = (1, 4)  # frames on the card at once; the update takes 16 in both cases
FRAMES_PER_UPDATE = 16


def main(argv: list[str]) -> int:
    """Make base and frames, train at each micro-batch size, answer, and print a table; all figures go to JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--like",
        default="Qwen/Qwen2-VL-7B-Instruct",
        help="a Hub id or a folder with config.json and the tokenizer's files (default: %(default)s)",
    )
    parser.add_argument("--out", default="outputs/smoke_7b", help="folder to write (default: %(default)s)")
    args = parser.parse_args(argv)
    out = from_root(args.out)
    check_machine(out)
    out.mkdir(parents=True, exist_ok=True)
    draw_data_folder(out / "data", train_clips_per_class=4)
    base = run(["benchmarks/random_qwen2vl.py", "--like", args.like, "--out", str(out / "base")])
    results: dict[str, Any] = {"machine": machine(), "random_weights_seconds": base["seconds"], "training": []}
    for micro_batch in MICRO_BATCHES:
        results["training"].append(train(out, micro_batch))
        write_json(out / "smoke_7b.json", results)
    results["inference"] = answer(out)
    write_json(out / "smoke_7b.json", results)
    print(as_table(results))
    return 0


def check_machine(out: Path) -> None:
    """Raise InputError where there is no GPU, or where the output folder is in use."""
    import torch

    if not torch.cuda.is_available():
        raise InputError("this benchmark needs an NVIDIA GPU that torch can see")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out {to_root(out)} is not empty; name another folder")


def train(out: Path, micro_batch: int) -> dict[str, Any]:
    """Train STEPS updates with the 8 GB recipe at one micro-batch size; return what the run says of itself."""
    folder = out / f"run-{micro_batch}"
    settings = {
        "model_name_or_path": out / "base",
        "dataset": out / "data",
        "output_dir": folder,
        "max_steps": STEPS,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": FRAMES_PER_UPDATE // micro_batch,
        "eval_steps": STEPS,
        "save_steps": STEPS,
        "logging_steps": 1,
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", "accelerate_config.yaml"]
    whole = run([*launch, "recipes/sft_qwen2vl.py", *flags])
    summary = json.loads((folder / "training.json").read_text())
    losses = [entry["loss"] for entry in summary["log_history"] if "loss" in entry]
    return {
        "micro_batch": micro_batch,
        "steps": summary["steps"],
        "losses": losses,
        "peak_allocated_gib": summary["peak_allocated_gib"],
        "peak_reserved_gib": summary["peak_reserved_gib"],
        "training_seconds": summary["seconds"],
        "whole_command_seconds": whole["seconds"],
        "adapter_mb": (folder / "adapter_model.safetensors").stat().st_size / 1e6,
    }


def answer(out: Path) -> dict[str, Any]:
    """Have infer.py answer one frame in a process of its own, and read that process's peak memory."""
    frame = next((out / "data").glob("frames/test/*/*/*.jpg"))
    command = (
        "import json, sys, torch; from recipes import infer; "
        f"infer.main(['--adapter', {str(out / f'run-{MICRO_BATCHES[0]}')!r}, '--image', {str(frame)!r}]); "
        "print(json.dumps([torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30]))"
    )
    done = run(["-c", command])
    said, memory = done["stdout"].strip().splitlines()
    allocated, reserved = json.loads(memory)
    return {
        "answer": said,
        "whole_command_seconds": done["seconds"],
        "peak_allocated_gib": allocated,
        "peak_reserved_gib": reserved,
    }


def run(arguments: list[str]) -> dict[str, Any]:
    """Run Python with these arguments in the project's root; return its stdout and seconds; pass stderr on."""
    begin = time.perf_counter()
    environment = with_project(HF_HUB_OFFLINE="1")
    done = subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return {"stdout": done.stdout, "seconds": time.perf_counter() - begin}


def machine() -> dict[str, str]:
    """Name the card and the versions that the figures were taken with."""
    import torch

    from recipes.report import versions

    return {"gpu": torch.cuda.get_device_name(0), "cuda": torch.version.cuda, **versions(), "os": platform.system()}


def as_table(results: dict[str, Any]) -> str:
    """Lay out the figures as text, one line of JSON last."""
    lines = [f"random weights written in {results['random_weights_seconds']:.0f} s"]
    for figures in results["training"]:
        lines.append(
            f"micro-batch {figures['micro_batch']}: {figures['steps']} steps of {FRAMES_PER_UPDATE} frames in "
            f"{figures['training_seconds']:.1f} s (command {figures['whole_command_seconds']:.0f} s), peak allocated "
            f"{figures['peak_allocated_gib']:.2f} GiB, reserved {figures['peak_reserved_gib']:.2f} GiB"
        )
    one = results["inference"]
    lines.append(
        f"infer.py: {one['answer']} in {one['whole_command_seconds']:.0f} s, peak allocated "
        f"{one['peak_allocated_gib']:.2f} GiB, reserved {one['peak_reserved_gib']:.2f} GiB"
    )
    return "\n".join([*lines, json.dumps(results)])


if __name__ == "__main__":
    run_script(main)
