"""Training as launchers start it, on a CPU: several processes, several local "machines"."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.measuring.machine import with_project
from benchmarks.measuring.recipe_arguments import recipe_arguments
from benchmarks.measuring.service_process import free_port
from data_prep.files import PROJECT_ROOT

ACCELERATE = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
SFT = "recipes/sft_qwen2vl.py"
FAULTY = "tests/recipes/ranks/faulty_process.py"
ADAPTER = "adapter_model.safetensors"
LIMIT_SECONDS = 180


def on_one_machine(processes: int) -> list[str]:
    """Return the launcher of so many processes, by the configuration that ships with the project."""
    config = ["--config_file", "accelerate_config_multi.yaml", "--num_processes", str(processes)]
    return [*ACCELERATE, "--quiet", *config, "--main_process_port", str(free_port())]


def run_alone(script: str) -> list[str]:
    """Return the command of a script in one process, without a launcher."""
    return [sys.executable, script]


def environment(**variables: str) -> dict[str, str]:
    found = with_project(PROJECT_ROOT, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", **variables)
    return {name: value for name, value in found.items() if not name.startswith("ACCELERATE")}


def started(command: list[str], **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=PROJECT_ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a launcher, which ends all that it started where it is ended itself."""
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.terminate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def launched(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return ended(started(command, **variables))


def short_run(base: Path, data: Path, **changed: Any) -> list[str]:
    """Return the demo's YAML, shortened: 20 updates of 4 frames."""
    settings = {
        "model_name_or_path": base,
        "dataset": data,
        "max_steps": 20,
        "eval_steps": 5,
        "save_steps": 5,
        "save_total_limit": 9,
        "per_device_train_batch_size": 4,
        "cache_vision_features": False,
        "linear_probe": False,
        "report_to": "none",
        **changed,
    }
    return recipe_arguments("recipes/configs/demo_cpu.yaml", settings)


def lines_with(word: str, said: str) -> list[str]:
    return [line for line in said.splitlines() if word in line]


def apart(first: Path, second: Path) -> float:
    """Return how far two adapters are apart, relative to the first one's norm."""
    one, other = (load_file(folder / ADAPTER) for folder in (first, second))
    assert one.keys() == other.keys()
    off = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return (off / sum(float(weight.double().square().sum()) for weight in one.values())) ** 0.5
