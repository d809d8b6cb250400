"""What every benchmark says of where it ran, and gives to the processes that it starts."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from joblib import cpu_count

from data_prep.files import PROJECT_ROOT


def with_project(root: Path = PROJECT_ROOT, **variables: str) -> dict[str, str]:
    """Return this process's environment with the project importable from its `root`, and `variables` set."""
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **variables}


def machine() -> dict[str, Any]:
    """Name the processor and the versions that the recipe's figures were taken with."""
    from recipes.report.contents import versions

    return {**processor(), "os": platform.system(), **versions()}


def machine_with(*packages: str) -> dict[str, Any]:
    """Name the processor, Python, and the versions of these packages, None for one that isn't installed."""
    return {**processor(), "python": platform.python_version(), **{name: _version_of(name) for name in packages}}


def processor() -> dict[str, Any]:
    """Return the processor's name, and how many cores of it this process may use."""
    return {"cpu": cpu_name(), "cores": cpu_count()}


def cpu_name() -> str:
    """Return the processor's name as Linux gives it, elsewhere as Python does."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
