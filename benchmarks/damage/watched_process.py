"""A process that answers line by line, watched: one that hangs is ended, one that crashes is told, both begin anew."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data_prep.files import PROJECT_ROOT


class Fault(Exception):
    """A process hung or crashed. The message is what it said last, then how it ended."""


class WatchedProcess:
    """One that runs a script of this folder on the version of the project in `root`; a context manager."""

    def __init__(self, script: str, *arguments: str, root: Path = PROJECT_ROOT, seconds: float) -> None:
        self._command = [sys.executable, str(Path(__file__).parent / script), *arguments]
        self._root, self._seconds = root, seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as this object

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._end()
        self._said.close()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a question, both one line of JSON to the process. Raises Fault for a hang or a crash."""
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(question).encode() + b"\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], self._seconds)
        if not ready:
            self._end()
            raise Fault(f"hang: no answer within {self._seconds:g} s")
        line = child.stdout.readline()
        if not line:
            raise Fault(self._last_words(child))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        self._said.seek(0)
        self._said.truncate()
        self._child = subprocess.Popen(
            self._command,
            cwd=self._root,
            env={**os.environ, "PYTHONPATH": str(self._root), "SVT_LOG": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        return self._child

    def _last_words(self, child: subprocess.Popen[bytes]) -> str:
        status = child.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()[-2000:]
        self._end()
        return f"{said}\ncrash: {signal.Signals(-status).name if status < 0 else f'exit status {status}'}".strip()

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
