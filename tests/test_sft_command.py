"""The command as it is started: `accelerate launch`, a signal to the launcher, and going on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from data_prep.files import PROJECT_ROOT
from recipes.checkpoints import is_whole
from tests.tiny_data import many_clips, write_data

LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]


def test_terminated_launcher_leaves_a_checkpoint_and_no_process(tmp_path: Path, small_base: Path) -> None:
    data = write_data(tmp_path / "data", many_clips())
    settings = {"model_name_or_path": small_base, "dataset": data, "output_dir": tmp_path / "run", "max_steps": 100_000}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    process = subprocess.Popen(
        [
            *LAUNCH,
            "recipes/sft_qwen2vl.py",
            "--config",
            "recipes/configs/demo_cpu.yaml",
            *flags,
            "--logging_steps",
            "1",
        ],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "'loss'" in line:
            process.send_signal(signal.SIGTERM)  # the launcher dies of it; training must notice
            break
    said = process.stderr.read()  # ends when the training process, which inherited the pipe, has ended
    assert process.wait() == -signal.SIGTERM
    assert "stopped by SIGTERM at step" in said
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert is_whole(checkpoint)
    assert not (tmp_path / "run" / "safety.json").exists()
