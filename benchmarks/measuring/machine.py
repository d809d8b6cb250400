"""What every benchmark says of where it ran, and gives to the processes that it starts."""

import os
import platform
from pathlib import Path

from data_prep.files import PROJECT_ROOT


def with_project(**variables: str) -> dict[str, str]:
    """Return this process's environment with the project importable, and `variables` set."""
    path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **variables}


def cpu_name() -> str:
    """Return the processor's name as Linux gives it, elsewhere as Python does."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
