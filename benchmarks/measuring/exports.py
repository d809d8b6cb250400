"""An export made as a user makes it, and asked by each engine that can be had."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from benchmarks.measuring.demo_frames import said_by_infer
from benchmarks.measuring.machine import with_project
from benchmarks.measuring.service_process import free_port
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes.layers.sizes import TOKEN_SIDE
from recipes.model.base_files import INDEX_FILE, weight_files
from recipes.serving.address import LOCAL

SECONDS_TO_START = 120
SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(frozen=True)
class Timed:
    """What one export took: from start to end of the command, and at most of memory.

    `peak_gib` is all that was resident, pages of mapped files and of libraries included; `own_gib` what the process
    had taken for itself.
    """

    seconds: float
    peak_gib: float
    own_gib: float


def export_timed(adapter: Path, out: Path) -> Timed:
    """Run export.py into a new folder."""
    begin = time.perf_counter()
    command = [sys.executable, "recipes/export.py", "--adapter", str(adapter), "--out", str(out)]
    own = 0.0
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=with_project(), stdout=subprocess.DEVNULL) as process:
        ended = 0
        while not ended:
            own = max(own, _own_gib(process.pid))
            time.sleep(SECONDS_BETWEEN_LOOKS)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InputError(f"export.py ended with {process.returncode}")
    return Timed(time.perf_counter() - begin, used.ru_maxrss / 2**20, own)


def _own_gib(process: int) -> float:
    """Return the memory in RAM that is of no file, of a process that may have ended meanwhile."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**20


def asked_by_infer(folder: Path, frames: Sequence[Path], *flags: str) -> list[float]:
    """Return P(UNSAFE) of each frame by infer.py."""
    return [said["p_unsafe"] for said in said_by_infer(folder, frames, *flags)]


def asked_by_readme(export: Path, frames: Sequence[Path], site: Path | None = None) -> tuple[str, list[float]]:
    """Return P(UNSAFE) of each frame by the README's lines for transformers, and its version.

    With `site`, packages in that folder come first.
    """
    script = PROJECT_ROOT / "benchmarks" / "measuring" / "readme_lines.py"
    path = os.pathsep.join(filter(None, [str(site or ""), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(export), *map(str, frames)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"{export}/README.md: its lines for transformers fail: {done.stderr[-800:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["version"], found["p_unsafe"]


def differing_layout(base: Path, export: Path) -> list[str]:
    """Return tensors, by file and shape, that an export has otherwise than its base, and files that neither needs."""
    differing = sorted(map(str, _layout(base) ^ _layout(export)))
    weights = {*weight_files(export), INDEX_FILE} if (export / INDEX_FILE).is_file() else {*weight_files(export)}
    known = {path.name for path in base.iterdir()} | weights | {"README.md", "safety.json"}
    return differing + sorted({path.name for path in export.iterdir()} - known)


def _layout(folder: Path) -> set[tuple[str, str, tuple[int, ...]]]:
    found = set()
    for file in weight_files(folder):
        with safe_open(folder / file, framework="np") as weights:
            found |= {(file, name, tuple(weights.get_slice(name).get_shape())) for name in weights.keys()}  # noqa: SIM118
    return found


def served_by_llama(
    export: Path, frames: Sequence[Path], source: Path, server: Path, out: Path, max_pixels: int
) -> list[float]:
    """Return P(UNSAFE) of each frame by `infer.py --server`, asked of llama.cpp with the export as GGUF in fp32."""
    out.mkdir(exist_ok=True)
    model, vision = out / "model.gguf", out / "mmproj.gguf"
    for file, flags in ((model, []), (vision, ["--mmproj"])):
        convert = [sys.executable, str(source / "convert_hf_to_gguf.py"), str(export), *flags]
        path = os.pathsep.join(filter(None, [str(source / "gguf-py"), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [*convert, "--outfile", str(file), "--outtype", "f32"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise InputError(f"{export}: not converted to {file.name}: {done.stderr[-800:]}")
    tokens = str(max_pixels // TOKEN_SIDE**2)
    command = [str(server), "--model", str(model), "--mmproj", str(vision), "--image-max-tokens", tokens]
    with _running([*command, "--ctx-size", "4096", "--parallel", "1"]) as url:
        return asked_by_infer(export, frames, "--server", url)


@contextmanager
def _running(command: list[str]) -> Iterator[str]:
    """Yield the address of a llama-server, which ends with it. Raises InputError where it doesn't come up."""
    from huggingface_hub.utils import httpx

    port = free_port()
    process = subprocess.Popen(
        [*command, "--host", LOCAL, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(SECONDS_TO_START):
            time.sleep(1)
            if process.poll() is not None:
                raise InputError(f"{command[0]} ended with {process.returncode} before it answered")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://{LOCAL}:{port}/health", trust_env=False).status_code == httpx.codes.OK:
                    break
        else:
            raise InputError(f"{command[0]} didn't come up within {SECONDS_TO_START} s")
        yield f"http://{LOCAL}:{port}/v1"
    finally:
        process.terminate()
        process.wait()
