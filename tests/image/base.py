"""A small stand-in for the Dockerfile's base image, which has 4 GB: Debian, its Python, and a torch in name alone.

pip and the Dockerfile's guard see torch 2.11.0+cu128. When a container runs, this Python's own torch is mounted in its
place, which computes on a CPU as the base image's does.
"""

import importlib.metadata
import importlib.util
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.image.engine import NoEngine

SUITE, PYTHON = "bookworm", (3, 11)
PACKAGES = "/usr/local/lib/python3.11/dist-packages"
STANDING_IN = {"torch": "+cu128", "torchvision": "+cu128"}
MOUNTED = ("torch", "torchgen", "torchvision", "torchvision.libs", "nvidia", "triton")
TORCH = (
    '"""Stands in for torch while an image is built."""\nfrom torch import version\n__version__ = version.__version__\n'
)
INDEXES = ("index-url", "extra-index-url", "trusted-host")


def check_can_stand_in() -> None:
    """Raise NoEngine where no stand-in can be made, with what would help."""
    if shutil.which("mmdebstrap") is None:
        raise NoEngine("no mmdebstrap to make a stand-in with; on Debian: apt-get install mmdebstrap")
    if sys.version_info[:2] != PYTHON:
        raise NoEngine("the stand-in has Debian's Python 3.11, whose torch this Python has not")


def write_stand_in(docker: str, image: str) -> None:
    """Make the stand-in and give it to the engine under the name `image`."""
    with tempfile.TemporaryDirectory(prefix="safe-unsafe-base-") as folder:
        root, archive = Path(folder, "root"), Path(folder, "base.tar")
        _write_files(root)
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io"]
        command += ["--include=python3-pip,python3-setuptools,ca-certificates"]
        command += [f"--customize-hook=sync-in {root} /", SUITE, str(archive)]
        subprocess.run(command, check=True)
        subprocess.run([docker, "import", str(archive), image], check=True, stdout=subprocess.DEVNULL)


def mounts() -> list[str]:
    """Return the arguments of `docker run` that put this Python's torch in the place of the one in name."""
    site = Path(str(importlib.util.find_spec("torch").origin)).parents[1]  # type: ignore[union-attr]
    here = [name for name in MOUNTED if (site / name).is_dir()]
    return [part for name in here for part in ("--volume", f"{site / name}:{PACKAGES}/{name}:ro")]


def _write_files(root: Path) -> None:
    """Write what a stand-in has beyond Debian's packages: torch's name, and how this machine reaches packages."""
    packages = root / PACKAGES.lstrip("/")
    for name, build in STANDING_IN.items():
        found = importlib.metadata.distribution(name)
        version = found.version.partition("+")[0] + build
        folder = packages / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(without_cuda(found.read_text("METADATA") or "", version))
        (folder / "RECORD").touch()
        (folder / "INSTALLER").write_text("pip\n")
        (packages / name).mkdir()
    version = importlib.metadata.version("torch").partition("+")[0] + STANDING_IN["torch"]
    (packages / "torch" / "__init__.py").write_text(TORCH)
    (packages / "torch" / "version.py").write_text(f'__version__ = "{version}"\ncuda = "12.8"\n')
    (root / "etc").mkdir()
    (root / "etc" / "pip.conf").write_text(indexes(subprocess.check_output([*PIP, "config", "list"], text=True)))
    if authorities := ssl.get_default_verify_paths().cafile:
        (root / "etc" / "ssl" / "certs").mkdir(parents=True)
        shutil.copy(authorities, root / "etc" / "ssl" / "certs" / "ca-certificates.crt")


PIP = (sys.executable, "-m", "pip")


def without_cuda(metadata: str, version: str) -> str:
    """Return a wheel's metadata with that version, and without what it requires of CUDA, which the image has."""
    head, _, text = metadata.partition("\n\n")
    lines = [
        line
        for line in head.splitlines()
        if not re.match(r"Requires-Dist: (nvidia|cuda|triton)", line) and not line.startswith("Version:")
    ]
    return "\n".join([*lines[:2], f"Version: {version}", *lines[2:]]) + f"\n\n{text}"


def indexes(listed: str) -> str:
    """Return a pip.conf with the indexes over the network that `pip config list` named."""
    found = re.findall(r"^\S+?\.([a-z-]+)='(.*)'$", listed, flags=re.MULTILINE)
    lines = [f"{name} = {value}" for name, value in found if name in INDEXES and "file:" not in value]
    return "\n".join(["[global]", *lines, ""])
