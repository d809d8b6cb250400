"""The command as it is started: `accelerate launch` with worker processes, a signal, and nothing lost."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.files import PROJECT_ROOT
from recipes.checkpoints import is_whole
from tests.tiny_data import many_clips, write_data

LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]
LIMIT_SECONDS = 300  # a run that doesn't notice the signal would go on for a day


def signal_launcher(process: subprocess.Popen[str]) -> None:
    """Signal the launcher alone, as `kill` does: it dies of it and training must notice."""
    process.send_signal(signal.SIGTERM)


def signal_group(process: subprocess.Popen[str]) -> None:
    """Signal every process at once, as schedulers and a terminal do."""
    os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.parametrize("send", [signal_launcher, signal_group])
def test_terminated_run_leaves_a_whole_checkpoint_and_no_process(
    send: Callable[[subprocess.Popen[str]], None], tmp_path: Path, small_base: Path
) -> None:
    settings = {
        "model_name_or_path": small_base,
        "dataset": write_data(tmp_path / "data", many_clips()),
        "output_dir": tmp_path / "run",
        "max_steps": 100_000,
        "logging_steps": 1,
        "dataloader_num_workers": 2,
        "dataloader_persistent_workers": True,  # one set of workers, whatever the epochs' length
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    process = subprocess.Popen(
        [*LAUNCH, "recipes/sft_qwen2vl.py", "--config", "recipes/configs/demo_cpu.yaml", *flags],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    last_resort = threading.Timer(LIMIT_SECONDS, os.killpg, [process.pid, signal.SIGKILL])
    last_resort.start()
    try:
        for line in process.stderr:
            if "'loss'" in line:
                send(process)
                break
        said = process.stderr.read()  # ends when every process that inherited the pipe has ended
        assert process.wait() == -signal.SIGTERM
    finally:
        last_resort.cancel()
    assert "stopped by SIGTERM at step" in said, said
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert is_whole(checkpoint)
    assert not (tmp_path / "run" / "safety.json").exists()
