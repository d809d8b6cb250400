"""The pins: exact, whole, as installed, and such that they leave the container image's torch in place."""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data_prep.files import PROJECT_ROOT

REQUIREMENTS = PROJECT_ROOT / "requirements.txt"
CONSTRAINTS = PROJECT_ROOT / "constraints.txt"
APP = PROJECT_ROOT / "requirements-app.txt"
SERVE = PROJECT_ROOT / "requirements-serve.txt"
BUILD = PROJECT_ROOT / "requirements-build.txt"
PYTHONS = ("3.11", "3.12")

# What torch alone asks for and the image brings with it. setuptools is the system's there, which pip can't replace
# everywhere; it is bounded by torch's own metadata, and nothing of this project imports it.
TORCHS_OWN = re.compile(r"nvidia-.*|cuda-.*|triton|setuptools")
CUDA_13 = re.compile(r"nvidia-(?!.*-cu12$).*|cuda-.*")

IMAGE = {"torch": "2.11.0+cu128", "torchvision": "0.26.0+cu128", "triton": "3.6.0", "setuptools": "68.1.2"}


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def pins_of(path: Path) -> dict[str, str]:
    pins = (line.split("==") for line in lines_of(path) if not line.startswith("-"))
    return {canonicalize_name(name): version for name, version in pins}


def all_pins() -> dict[str, str]:
    return pins_of(CONSTRAINTS) | pins_of(REQUIREMENTS)


def needed_by(name: str, extras: frozenset[str], python: str) -> Iterator[Requirement]:
    """Yield what an installed distribution asks for on Linux x86-64 and that Python; nothing if it isn't installed."""
    linux = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    linux |= {"platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
    try:
        asked = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, asked):
        marker = requirement.marker
        if marker is None or any(marker.evaluate(linux | {"extra": extra}) for extra in extras | {""}):
            yield requirement


def closure(roots: list[Requirement], python: str) -> set[str]:
    """Return the names of every distribution that the roots need, themselves included."""
    seen: set[tuple[str, frozenset[str]]] = set()
    open_ones = [(canonicalize_name(root.name), frozenset(root.extras)) for root in roots]
    while open_ones:
        entry = open_ones.pop()
        if entry not in seen:
            seen.add(entry)
            found = needed_by(*entry, python)
            open_ones += [(canonicalize_name(each.name), frozenset(each.extras)) for each in found]
    return {name for name, _ in seen}


def roots() -> list[Requirement]:
    return [Requirement(f"{name}=={version}") for name, version in pins_of(REQUIREMENTS).items()]


def test_requirements_are_exact_and_end_with_the_project() -> None:
    lines = lines_of(REQUIREMENTS)
    assert lines[-1] == "-e ."
    assert [line for line in lines[:-1] if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []


def test_constraints_are_exact_and_leave_torch_alone() -> None:
    lines = lines_of(CONSTRAINTS)
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert [name for name in pins_of(CONSTRAINTS) if TORCHS_OWN.fullmatch(name) or name.startswith("torch")] == []


FURTHER = tuple(f"requirements-{name}.txt" for name in ("dev", "app", "serve", "dask", "build"))
EXTRAS = [
    ("dask", ["dask", "distributed"]),
    ("app", ["gradio"]),
    ("serve", ["fastapi", "uvicorn", "python-multipart", "prometheus-client"]),
]


@pytest.mark.parametrize("name", FURTHER)
def test_further_pins_are_exact_and_do_not_contradict(name: str) -> None:
    further = pins_of(PROJECT_ROOT / name)
    assert all(re.fullmatch(r"[0-9][A-Za-z0-9.]*", version) for version in further.values())
    others = all_pins() | {key: pin for other in FURTHER for key, pin in pins_of(PROJECT_ROOT / other).items()}
    assert {key: version for key, version in further.items() if others[key] != version} == {}


def test_what_builds_the_project_is_pinned_once() -> None:
    """The file for machines without a network names the very build that pip will ask for there."""
    build = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pins = {f"{name}=={version}" for name, version in pins_of(BUILD).items()}
    assert set(build) <= pins


@pytest.mark.parametrize(("extra", "wanted"), EXTRAS)
def test_all_that_an_extra_needs_is_pinned_and_nothing_else(extra: str, wanted: list[str]) -> None:
    pins = pins_of(PROJECT_ROOT / f"requirements-{extra}.txt")
    needed = set().union(*(closure([Requirement(name) for name in wanted], python) for python in PYTHONS))
    assert set(pins) == needed - set(all_pins())


def test_project_has_no_dependencies_outside_the_pins() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    assert "dependencies" not in project and "optional-dependencies" not in project


@pytest.mark.parametrize("python", PYTHONS)
def test_everything_beneath_is_pinned(python: str) -> None:
    needed = {name for name in closure(roots(), python) if not TORCHS_OWN.fullmatch(name)}
    assert needed - set(all_pins()) == set()


def test_nothing_else_is_pinned() -> None:
    needed = set().union(*(closure(roots(), python) for python in PYTHONS))
    assert set(pins_of(CONSTRAINTS)) - needed == set()
    assert set(pins_of(CONSTRAINTS)) & set(pins_of(REQUIREMENTS)) == set()


def test_closure_follows_extras_and_markers() -> None:
    """aiohttp comes through fsspec's extra `http`, which evaluate asks for; what is Windows's doesn't come at all."""
    assert "aiohttp" in closure([Requirement("evaluate")], "3.12")
    assert "aiohttp" not in closure([Requirement("fsspec")], "3.12")
    assert "colorama" not in closure([Requirement("tqdm")], "3.12")


def test_installed_packages_are_the_pinned_ones() -> None:
    differing = {}
    for name, pinned in all_pins().items():
        installed = importlib.metadata.version(name).split("+")[0]
        if installed != pinned:
            differing[name] = f"{installed}, pinned {pinned}"
    assert differing == {}


@dataclass(frozen=True)
class DryRun:
    """What an installer would do to an environment: distributions by name, each with its version."""

    installed: dict[str, str]
    removed: dict[str, str]

    def faults(self) -> set[str]:
        """Return what would touch the image's torch or bring a CUDA 13 library."""
        touched = {name for name in (*self.installed, *self.removed) if name in IMAGE and name != "setuptools"}
        return touched | {name for name in self.installed if CUDA_13.fullmatch(name)}


@pytest.fixture
def image_packages(tmp_path: Path) -> Path:
    """A site-packages folder whose metadata says what the container's base image has.

    torch asks there for what the installed torch asks for, less its CUDA libraries: of those, the image has its own.
    """
    folder = tmp_path / "image"
    for name, version in IMAGE.items():
        record = folder / f"{name}-{version}.dist-info"
        record.mkdir(parents=True)
        asked = [] if name == "setuptools" else importlib.metadata.requires(name) or []
        kept = [line for line in asked if not re.match(r"(nvidia|cuda)-", line)]
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in kept]
        (record / "METADATA").write_text("\n".join(lines) + "\n")
        (record / "RECORD").touch()
    return folder


def dry_run(image_packages: Path, requirements: list[str]) -> DryRun:
    """Resolve requirements and constraints as for Python 3.12 on Linux x86-64, beside the image's packages."""
    listed = image_packages.parent / "requirements.txt"
    listed.write_text("\n".join(requirements) + "\n")
    command: list[str | Path] = [
        Path(sysconfig.get_path("scripts")) / "uv",
        "pip",
        "install",
        "--dry-run",
        "--no-cache",
        "--no-config",
    ]
    command += ["--python", sys.executable, "--target", image_packages]
    command += ["--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:"]
    command += ["--requirement", listed, "--constraint", CONSTRAINTS]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "error: Failed to fetch" in found.stderr or "network was disabled" in found.stderr:
        pytest.skip("no package registry can be reached: nothing to resolve the pins from")
    assert found.returncode == 0, found.stderr
    changes = re.findall(r"^ ([+-]) (\S+)==(\S+)$", found.stderr, re.MULTILINE)
    by_sign = {sign: {name: version for each, name, version in changes if each == sign} for sign in "+-"}
    return DryRun(installed=by_sign["+"], removed=by_sign["-"])


def requirement_lines() -> list[str]:
    return [line for line in lines_of(REQUIREMENTS) if line != "-e ."]


def test_no_requirement_replaces_the_images_torch(image_packages: Path) -> None:
    """And what would be installed are the pinned versions alone, so the pins are whole for Python 3.12, too.

    What builds the project is among them: all of it is downloaded together for machines without a network.
    """
    found = dry_run(image_packages, [*requirement_lines(), *lines_of(APP), *lines_of(SERVE), *lines_of(BUILD)])
    assert found.faults() == set()
    assert found.removed == {}
    pins = all_pins() | pins_of(APP) | pins_of(SERVE) | pins_of(BUILD)
    assert found.installed == {name: version for name, version in pins.items() if name not in IMAGE}


@pytest.mark.parametrize(
    ("without", "instead", "fault"),
    [
        (["torch", "torchvision"], "torch==2.10.0", "torch"),
        (["torch", "torchvision"], "torch>2.11.0", "torch"),
        (["torch", "torchvision"], "torchvision==0.25.0", "torchvision"),
        ([], "nvidia-cublas", "nvidia-cublas"),
        ([], "cuda-bindings==13.0.3", "cuda-bindings"),
    ],
)
def test_dry_run_sees_what_would_touch_torch(
    image_packages: Path, without: list[str], instead: str, fault: str
) -> None:
    kept = [line for line in requirement_lines() if line.split("==")[0] not in without]
    assert fault in dry_run(image_packages, [*kept, instead]).faults()
