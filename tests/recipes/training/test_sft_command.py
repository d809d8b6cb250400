"""The commands as they are started, with worker processes: a signal, and nothing lost."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data_prep.files import PROJECT_ROOT
from recipes.training.checkpoints import is_whole
from tests.tiny_data import many_clips, write_data

LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]
LIMIT_SECONDS = 300  # a run that doesn't notice the signal would go on for a day


def signal_launcher(process: subprocess.Popen[str]) -> None:
    """Signal the launcher alone, as `kill` does: it dies of it and training must notice."""
    process.send_signal(signal.SIGTERM)


def signal_group(process: subprocess.Popen[str]) -> None:
    """Signal every process at once, as schedulers and a terminal do."""
    os.killpg(process.pid, signal.SIGTERM)


def settings_of(folder: Path, base: Path) -> dict[str, object]:
    """Return settings of a run that would take a day."""
    return {
        "model_name_or_path": str(base),
        "dataset": str(write_data(folder / "data", many_clips())),
        "output_dir": str(folder / "run"),
        "max_steps": 100_000,
        "logging_steps": 1,
        "dataloader_num_workers": 2,
        "dataloader_persistent_workers": True,  # one set of workers, whatever the epochs' length
    }


def run_until_trained(command: list[str], send: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    """Start a command in a session of its own and signal it once it trains; return its status and what it said."""
    process = subprocess.Popen(
        command,
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    last_resort = threading.Timer(LIMIT_SECONDS, os.killpg, [process.pid, signal.SIGKILL])
    last_resort.start()
    said = ""
    try:
        for line in process.stderr:
            said += line
            if "'loss'" in line:
                send(process)
                break
        said += process.stderr.read()  # ends when every process that inherited the pipe has ended
        return process.wait(), said
    finally:
        last_resort.cancel()


@pytest.mark.parametrize("send", [signal_launcher, signal_group])
def test_terminated_run_leaves_a_whole_checkpoint_and_no_process(
    send: Callable[[subprocess.Popen[str]], None], tmp_path: Path, small_base: Path
) -> None:
    flags = [part for name, value in settings_of(tmp_path, small_base).items() for part in (f"--{name}", str(value))]
    command = [*LAUNCH, "recipes/sft_qwen2vl.py", "--config", "recipes/configs/demo_cpu.yaml", *flags]
    status, said = run_until_trained(command, send)
    assert status == -signal.SIGTERM
    assert "stopped by SIGTERM at step" in said, said
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert is_whole(checkpoint)
    assert not (tmp_path / "run" / "safety.json").exists()


def service_command(config: Path) -> list[str]:
    """Return what the compose file's service `train` runs, with its variable filled in as Compose does."""
    words = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"]["train"]["command"]
    filled = [re.sub(r"\$\{CONFIG:-[^}]+\}", str(config), word) for word in words]
    assert str(config) in filled and filled[0] == "python"
    return [sys.executable, *filled[1:]]


def test_container_s_training_is_stopped_with_a_whole_checkpoint_and_goes_on(tmp_path: Path, small_base: Path) -> None:
    """Docker tells the container's first process alone, which passes it on to the command and to nothing else."""
    demo = yaml.safe_load((PROJECT_ROOT / "recipes/configs/demo_cpu.yaml").read_text())
    changed = {"cache_vision_features": False, "eval_strategy": "no", "load_best_model_at_end": False}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**demo, **settings_of(tmp_path, small_base), **changed}))
    reached = []
    for _ in ("up", "up again"):
        status, said = run_until_trained(service_command(config), signal_launcher)
        assert status == 128 + signal.SIGTERM, said
        reached.append(int(re.findall(r"stopped by SIGTERM at step (\d+), checkpoint saved", said)[0]))
        assert is_whole(tmp_path / "run" / f"checkpoint-{reached[-1]}")
    assert f"resuming from checkpoint-{reached[0]}" in said
    assert reached[1] > reached[0]
