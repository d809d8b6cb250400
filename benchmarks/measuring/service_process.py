"""recipes/serve.py as a process, and a process that calls the model itself, for bench_serve.py."""

import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.measuring.machine import with_project
from data_prep.files import PROJECT_ROOT
from recipes.serving.address import LOCAL, listen


@dataclass
class ServiceProcess:
    """A running service: its process, its port, and the file of what it says."""

    process: "subprocess.Popen[str]"
    port: int
    said: Path

    def resident_mb(self) -> float:
        """Return the memory that the process has in RAM, in MB."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)

    def cpu_seconds(self) -> float:
        """Return the processor time that it has taken so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def counted(self, token: str | None = None) -> dict[str, float]:
        """Return what /metrics says, by name."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        asked = urllib.request.Request(f"http://{LOCAL}:{self.port}/metrics", headers=headers)
        with urllib.request.urlopen(asked) as response:
            lines = response.read().decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}

    def end(self) -> int:
        """Tell it to end by SIGTERM, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(600)


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with listen(LOCAL, 0) as free:
        return int(free.getsockname()[1])


@contextmanager
def service(flags: Sequence[str]) -> Iterator[ServiceProcess]:
    """Run serve.py with these flags on a free port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        said = Path(folder, "said")
        with said.open("w") as file:
            process = started(["recipes/serve.py", "--port", str(port), *flags], stderr=file)
        try:
            if not line_of(process):
                raise RuntimeError(said.read_text())
            yield ServiceProcess(process, port, said)
        finally:
            process.kill()
            process.wait()


@contextmanager
def own_calls(flags: Sequence[str]) -> "Iterator[OwnCalls]":
    """Run benchmarks/arms/serve.py with these flags."""
    process = started(["benchmarks/arms/serve.py", *flags], stdin=subprocess.PIPE)
    try:
        line_of(process)
        yield OwnCalls(process)
    finally:
        process.kill()
        process.wait()


@dataclass
class OwnCalls:
    """A process that calls the model itself."""

    process: "subprocess.Popen[str]"

    def begin(self, **asked: Any) -> None:
        """Have it measure."""
        assert self.process.stdin
        print(json.dumps(asked), file=self.process.stdin, flush=True)

    def measured(self) -> dict[str, Any]:
        """Return what it measured, once it has."""
        found: dict[str, Any] = json.loads(line_of(self.process))
        return found


def started(
    arguments: Sequence[str], *, stdin: int | None = None, stderr: IO[str] | None = None
) -> "subprocess.Popen[str]":
    """Start Python on a script of the project, whose maths libraries wait as serve.py has them wait."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        env=with_project(OMP_WAIT_POLICY="PASSIVE"),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def line_of(process: "subprocess.Popen[str]") -> str:
    """Return the next line that a process prints, empty where it has ended."""
    assert process.stdout
    return process.stdout.readline()
