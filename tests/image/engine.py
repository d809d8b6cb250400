"""A Docker engine: the one that runs, or one of our own for as long as it is needed, where the machine allows that."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_SECONDS = 60


class NoEngine(Exception):
    """There is no engine to be had. The message says why, and what would help."""


def docker_command() -> str:
    """Return the first docker command of the path that builds with BuildKit, as Compose does.

    Raises NoEngine where there is none; one in the path may lack that part.
    """
    found = [Path(folder) / "docker" for folder in os.get_exec_path()]
    for command in (str(path) for path in found if os.access(path, os.X_OK)):
        wanted = {**os.environ, "DOCKER_BUILDKIT": "1"}
        if not subprocess.run([command, "build", "--help"], env=wanted, capture_output=True, check=False).returncode:
            return command
    raise NoEngine("no docker command that builds with BuildKit; on Debian: apt-get install docker.io")


def is_up(docker: str) -> bool:
    """Say whether an engine answers."""
    return subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


@contextmanager
def engine() -> Iterator[str]:
    """Have an engine run, and give the docker command that reaches it.

    Raises NoEngine where none runs and none can be started.
    """
    docker = docker_command()
    if is_up(docker):
        yield docker
        return
    daemon = shutil.which("dockerd")
    if os.geteuid() != 0 or daemon is None:
        raise NoEngine("no Docker engine runs, and only root could start one (dockerd, in Debian's docker.io)")
    with tempfile.TemporaryDirectory(prefix="safe-unsafe-docker-", ignore_cleanup_errors=True) as folder:
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = f"unix://{folder}/socket"
        try:
            with _started(daemon, docker, Path(folder)):
                yield docker
        finally:
            os.environ.pop("DOCKER_HOST")
            os.environ.update({"DOCKER_HOST": before} if before else {})


@contextmanager
def _started(daemon: str, docker: str, folder: Path) -> Iterator[None]:
    """Run a daemon that keeps all it has in `folder`, without networks of its own, and end it afterwards."""
    places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    command = [daemon, *(f"--{flag}={folder / name}" for flag, name in places.items())]
    command += ["--host", os.environ["DOCKER_HOST"], "--iptables=false", "--ip6tables=false", "--bridge=none"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until = time.monotonic() + PATIENCE_SECONDS
            while not is_up(docker):
                if process.poll() is not None or time.monotonic() > until:
                    last = (folder / "log").read_text(errors="replace").splitlines()[-1:]
                    raise NoEngine(f"dockerd can't be started here: {' '.join(last)}")
                time.sleep(0.5)
            yield
        finally:
            process.terminate()
            process.wait()
