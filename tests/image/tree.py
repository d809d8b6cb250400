"""A clean clone of the project with what a user drops beside it, and what of both belongs into the image."""

import os
import shutil
import subprocess
from pathlib import Path

from data_prep.files import PROJECT_ROOT

# Of what is tracked, this stays out of the image: it isn't run in the container, or it is mounted.
NOT_RUN_THERE = (
    *(".ci/", ".dockerignore", ".gitignore", "Dockerfile", "docker-compose.yml"),
    *("CHANGELOG.md", "README.md", "docs/", "tests/", "benchmarks/README.md", "benchmarks/results/"),
    *("tiny_base/weights/README.md", "data/", "outputs/", "exports/", "cache/"),
)
KEPT_OUT = [
    "data/Safe and Unsafe Behaviours Dataset/train/0_safe_walkway_violation/0_tr1.mp4",
    "data/other/train.jsonl",
    "data/frames/train/unsafe/0_tr1/0000.jpg",
    "outputs/other/adapter_model.safetensors",
    "outputs/other/safety.json",
    "cache/hf/hub/models--plant--other/blobs/0a1b",
    ".cache/huggingface/token",
    ".venv/bin/python",
    ".git/config",
    ".env",
    "model.safetensors",
    "recipes/model-00001-of-00005.safetensors",
    "benchmarks/weights/pytorch_model.bin",
    "tiny_base/checkpoint/optimizer.pt",
    "qwen.gguf",
    "copied clips/3_te1.MP4",
    "dock.webm",
    "recipes/dock.3gp",
    "recipes/configs/gate.TS",
    "wheels/torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    "exports/merged/tokenizer.json",
    ".netrc",
    ".docker/config.json",
    "token.txt",
    "id_ed25519",
    "secrets.yaml",
    "recipes/token.txt",
    "recipes/.env",
    "recipes/configs/.netrc",
    "recipes/.ipynb_checkpoints/infer-checkpoint.py",
    "data_prep/._clips.py",
    "data_prep/frames/0000.jpg",
    "benchmarks/random/config.json",
    "tiny_base/weights/trainer_state.txt",
    "recipes/__pycache__/infer.cpython-312.pyc",
    "recipes/configs/__pycache__/old.cpython-312.pyc",
    ".mypy_cache/3.11/cache.json",
    "safe_unsafe.egg-info/PKG-INFO",
]


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in the project's folder."""
    return subprocess.run(["git", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def tracked_files() -> list[str]:
    """Return the names of all tracked files, from the project's root; [] outside a git checkout."""
    return git("ls-files").stdout.splitlines()


def of_the_image() -> set[str]:
    """Return the tracked files that the container runs."""
    return {name for name in tracked_files() if not name.startswith(NOT_RUN_THERE)}


def touch(root: Path, name: str) -> None:
    """Make an empty file of that name below `root`."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def write_clone(root: Path, uid: int, gid: int) -> None:
    """Write all tracked files as they are now, and the strays, into `root`, owned by that user."""
    for name in tracked_files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, root / name)
    for name in KEPT_OUT:
        touch(root, name)
    for path in (root, *root.rglob("*")):
        os.chown(path, uid, gid)
