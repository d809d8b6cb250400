"""Each launch of docs/machines.md as it stands there, by two local "machines" with a process each."""

import json
import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.measuring.service_process import free_port
from data_prep.files import PROJECT_ROOT
from recipes.adapter.safety_record import is_finished
from recipes.training.checkpoints import is_whole
from tests.project.documents import blocks_of, commands_of
from tests.recipes.ranks.launching import (
    ACCELERATE,
    FAULTY,
    SFT,
    TORCHRUN,
    ended,
    environment,
    launched,
    lines_with,
    short_run,
    started,
)
from tests.tiny_data import many_clips, write_data

MACHINES = PROJECT_ROOT / "docs" / "machines.md"


def documented(beginning: str, holding: str) -> list[str]:
    """Return the one command of the page that begins so and holds a word."""
    (found,) = [line for line in commands_of(MACHINES) if line.startswith(beginning) and f" {holding} " in line]
    return shlex.split(found)


def here(words: list[str], port: int, settings: list[str], script: str = SFT) -> list[str]:
    """Return a documented launch for this machine: with its address, a free port and a short run's settings."""
    launcher = ACCELERATE[:-1] if words[0] == "accelerate" else TORCHRUN
    changed = [
        word.replace("10.0.0.1", "127.0.0.1").replace("29500", str(port)).replace(SFT, script) for word in words[1:]
    ]
    return [*launcher, *changed, *settings]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("frames"), many_clips())


@pytest.fixture
def settings(small_base: Path, data: Path) -> list[str]:
    return short_run(small_base, data, max_steps=8, eval_steps=4, save_steps=4)


def test_two_machines_train_one_adapter_on_the_first_ones_disk(settings: list[str], tmp_path: Path) -> None:
    port = free_port()
    machines = [
        started(
            here(
                documented("accelerate", f"--machine_rank {rank}"),
                port,
                [*settings, "--output_dir", str(tmp_path / rank)],
            )
        )
        for rank in ("0", "1")
    ]
    first, second = (ended(machine) for machine in machines)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert is_finished(tmp_path / "0")
    assert not (tmp_path / "1").exists()
    assert first.stdout.splitlines() == [str(tmp_path / "0")]
    assert second.stdout == ""
    assert lines_with("train 32 frames", second.stderr) == []


@pytest.mark.parametrize(
    ("beginning", "holding", "wait"),
    [("accelerate", "--machine_rank 0", "timeout=60"), ("torchrun", "1:4", "join_timeout=60")],
)
def test_wait_for_a_missing_machine_ends(
    beginning: str, holding: str, wait: str, settings: list[str], tmp_path: Path
) -> None:
    words = documented(beginning, holding)
    assert any(wait in word for word in words)
    words = ["2" if word == "1:4" else word.replace("timeout=60", "timeout=2") for word in words]
    begin = time.monotonic()
    done = launched(here(words, free_port(), [*settings, "--output_dir", str(tmp_path / "run")]))
    assert done.returncode != 0
    assert 2 <= time.monotonic() - begin < 60
    assert any(word in done.stderr.lower() for word in ("timed out", "timeout")), done.stderr
    assert not (tmp_path / "run").exists()


def elastic_by_two() -> list[str]:
    """Return the elastic launch of the page, of two processes on one machine, which waits for others for a second."""
    line = shlex.join(documented("torchrun", "1:4")).replace("--nproc-per-node 1", "--nproc-per-node 2")
    return shlex.split(line.replace("last_call_timeout=30", "last_call_timeout=1"))


def test_elastic_launch_comes_back_from_the_last_checkpoint(settings: list[str], tmp_path: Path) -> None:
    """A process is killed; the next attempt's second one doesn't see the first one's disk, and is sent a checkpoint."""
    command = here(elastic_by_two(), free_port(), [*settings, "--output_dir", str(tmp_path / "run")], FAULTY)
    done = launched(command, FAULT="1 5 killed", BLIND="1")
    assert done.returncode == 0, done.stderr
    assert lines_with("error: another process has ended: checkpoint-5 is saved", done.stderr)
    assert lines_with("resuming from checkpoint-5", done.stderr)
    assert is_whole(tmp_path / "run" / "checkpoint-8")
    assert is_finished(tmp_path / "run")


def test_elastic_launch_doesnt_begin_anew_where_the_first_machine_is_another(
    settings: list[str], tmp_path: Path
) -> None:
    """Its disk is gone with it."""
    words = elastic_by_two()
    words[words.index("--max-restarts") + 1] = "1"
    command = here(words, free_port(), [*settings, "--output_dir", str(tmp_path / "run")], FAULTY)
    done = launched(command, FAULT="0 5 killed with its disk")
    assert done.returncode != 0
    assert lines_with("error: checkpoint-4 was saved on ", done.stderr)
    assert lines_with("holds none as new; have output_dir lie on a disk that all machines share", done.stderr)
    assert is_whole(tmp_path / "run-gone" / "checkpoint-4")
    assert not is_finished(tmp_path / "run")


def test_slurm_file_starts_processes_that_train_together(settings: list[str], tmp_path: Path) -> None:
    """srun and scontrol are stand-ins: a line for each of two machines, which are both this one.

    What lies where is left to the machines: the run's record holds the frames of both.
    """
    (script,) = blocks_of(MACHINES.read_text(), "sh")
    port = free_port()
    flags = shlex.join([*settings, "--frames_an_update", "8", "--output_dir", str(tmp_path / "run")])
    script = script.replace("29500", str(port)).replace("--nproc-per-node 2", "--nproc-per-node 1")
    (tmp_path / "job").write_text(script.replace("--resume", f"--resume {flags}"))
    stand_ins = {
        "scontrol": '[ "$1 $2 $3" = "show hostnames two" ] && echo 127.0.0.1 && echo 127.0.0.1',
        "srun": '"$@" & "$@" & wait %1 && wait %2',
        "torchrun": shlex.join(TORCHRUN) + ' "$@"',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    own = environment(PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_NNODES="2", SLURM_JOB_NODELIST="two")
    job = ["bash", str(tmp_path / "job")]
    done = subprocess.run(job, cwd=PROJECT_ROOT, env=own, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "run")]
    assert len(lines_with("train 32 frames", done.stderr)) == 1
    assert is_finished(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["per_device_train_batch_size"], record["gradient_accumulation_steps"]) == (4, 2)
