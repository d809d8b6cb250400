"""The container's three files, checked without a Docker engine."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.utils.build import exclude_paths

from data_prep.files import PROJECT_ROOT

SCRIPTS = Path(sysconfig.get_path("scripts"))
DOCKERFILE = PROJECT_ROOT / "Dockerfile"
COMPOSE = PROJECT_ROOT / "docker-compose.yml"
DOCKERIGNORE = PROJECT_ROOT / ".dockerignore"

KEPT_OUT = [
    "data/Safe and Unsafe Behaviours Dataset/train/0_safe_walkway_violation/0_tr1.mp4",
    "data/demo/train.jsonl",
    "data/frames/train/unsafe/0_tr1/0000.jpg",
    "outputs/demo/adapter_model.safetensors",
    "outputs/demo/safety.json",
    "cache/hf/hub/models--Qwen--Qwen2-VL-7B-Instruct/blobs/0a1b",
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
    "recipes/__pycache__/infer.cpython-312.pyc",
    "tests/__pycache__/test_rows.cpython-312.pyc",
    ".mypy_cache/3.11/cache.json",
    "safe_unsafe.egg-info/PKG-INFO",
]
TAKEN_IN = [
    "Makefile",
    "README.md",
    "accelerate_config.yaml",
    "constraints.txt",
    "pyproject.toml",
    "requirements.txt",
    "data_prep/extract_frames.py",
    "recipes/configs/demo_cpu.yaml",
    "recipes/sft_qwen2vl.py",
    "tests/test_rows.py",
    "tiny_base/pretrain.py",
    "tiny_base/weights/config.json",
    "tiny_base/weights/model.safetensors",
]


def run_tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPTS / name, *arguments], capture_output=True, text=True, timeout=60, check=False)


def instructions() -> list[str]:
    """Return the Dockerfile's instructions, one string each, without comments and line ends."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    return [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def position(start: str) -> int:
    return next(number for number, line in enumerate(instructions()) if line.startswith(start))


def test_hadolint_finds_nothing() -> None:
    found = run_tool("hadolint", "--no-color", DOCKERFILE)
    assert (found.returncode, found.stdout) == (0, "")


def test_hadolint_would_find_a_fault(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.read_text().replace(" --no-cache-dir", "").replace("hadolint ignore", ""))
    found = run_tool("hadolint", "--no-color", broken)
    assert found.returncode == 1
    assert set(re.findall(r"DL\d+", found.stdout)) == {"DL3008", "DL3042"}


def test_each_hadolint_ignore_has_its_reason_above() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    ignores = [number for number, line in enumerate(lines) if "hadolint ignore" in line]
    assert all(re.match(r"# \w+", lines[number - 1]) for number in ignores)


def test_base_image_and_torch_pin_agree() -> None:
    pin = re.search(r"^torch==(\S+)$", (PROJECT_ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pin is not None
    assert instructions()[0] == f"FROM pytorch/pytorch:{pin[1]}-cuda12.8-cudnn9-runtime"


def test_what_pip_needs_is_copied_before_it_runs_and_exists() -> None:
    before = instructions()[: position("RUN python3 -m pip install")]
    copied = [name for line in before if line.startswith("COPY") for name in line.split()[1:-1]]
    assert copied == [
        *("requirements.txt", "requirements-app.txt", "constraints.txt", "pyproject.toml", "data_prep", "recipes")
    ]
    tracked = tracked_files()
    assert all(any(file == name or file.startswith(f"{name}/") for file in tracked) for name in copied)


def test_rest_is_copied_after_the_packages_and_the_guard() -> None:
    order = [position(start) for start in ("RUN python3 -m pip install", 'RUN ["python3"', "COPY . .", "CMD")]
    assert order == sorted(order)
    assert instructions()[-1] == 'CMD ["/bin/bash"]'


@pytest.mark.parametrize(
    ("version", "cuda", "passes"),
    [
        ("2.11.0+cu128", "12.8", True),
        ("2.11.0", "12.6", True),
        ("2.11.0+cu130", "13.0", False),
        ("2.11.0", None, False),
        ("2.12.0+cu128", "12.8", False),
        ("2.11.0.post1", "12.8", False),
    ],
)
def test_build_stops_if_torch_was_replaced(tmp_path: Path, version: str, cuda: str | None, passes: bool) -> None:
    """Runs the Dockerfile's own guard against a stand-in for torch."""
    (tmp_path / "torch").mkdir()
    source = f"class version:\n    cuda = {cuda!r}\n__version__ = {version!r}\n"
    (tmp_path / "torch/__init__.py").write_text(source)
    guard = json.loads(instructions()[position('RUN ["python3"')].removeprefix("RUN "))
    found = subprocess.run(
        [sys.executable, *guard[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode == 0) == passes
    assert passes or "not 2.11.0 and 12" in found.stderr


def test_make_takes_the_images_own_python() -> None:
    """With the image's empty VENV the demo is the same commands by the system's python3, and installs nothing."""
    environment = dict(re.findall(r'(\w+)="?([^"\s]*)"?', instructions()[position("ENV")].removeprefix("ENV ")))
    assert environment["VENV"] == ""
    outer = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES")}
    found = subprocess.run(
        ["make", "--dry-run", "demo"],
        cwd=PROJECT_ROOT,
        env=outer | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python3 data_prep/make_demo_clips.py" in found.stdout
    assert ".venv" not in found.stdout and "pip install" not in found.stdout


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: what is tracked can't be asked")
    return listed.stdout.splitlines()


def service() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]["vlm"]


def check_compose(path: Path) -> subprocess.CompletedProcess[str]:
    """Validate against the Compose specification's own schema, which check-jsonschema carries."""
    return run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def test_compose_file_is_valid() -> None:
    found = check_compose(COMPOSE)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ("gpus: all", "gpus: 3.5", "services.vlm.gpus"),
        ("gpus: all", "gpu: all", "'gpu' was unexpected"),
        ("tty: true", "tty: [1]", "services.vlm.tty"),
    ],
)
def test_broken_compose_file_is_refused(tmp_path: Path, good: str, bad: str, named: str) -> None:
    broken = tmp_path / "docker-compose.yml"
    text = COMPOSE.read_text()
    assert f"{good}\n" in text
    broken.write_text(text.replace(f"{good}\n", f"{bad}\n", 1))
    found = check_compose(broken)
    assert found.returncode == 1
    assert named in found.stdout


def test_service_is_the_briefs() -> None:
    expected = {
        "build": ".",
        "container_name": "vlm_safe_unsafe",
        "working_dir": "/workspace",
        "volumes": [
            "./data:/workspace/data:rw",
            "./data_prep:/workspace/data_prep:rw",
            "./recipes:/workspace/recipes:rw",
            "./outputs:/workspace/outputs:rw",
            "./cache/hf:/workspace/.cache/huggingface:rw",
            "./cache/vision:/workspace/cache/vision:rw",
        ],
        "environment": [
            "NVIDIA_VISIBLE_DEVICES=all",
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            "HF_HOME=/workspace/.cache/huggingface",
            "HF_HUB_DISABLE_TELEMETRY=1",
        ],
        "shm_size": "2gb",
        "stdin_open": True,
        "tty": True,
        "gpus": "all",
    }
    assert service() == expected


def test_training_is_a_process_of_its_own_that_can_be_stopped() -> None:
    """tests/test_sft_command.py runs and stops that very command."""
    train = yaml.safe_load(COMPOSE.read_text())["services"]["train"]
    assert (train["profiles"], train["build"], train["gpus"]) == (["train"], ".", "all")
    assert (train["init"], train["stop_grace_period"]) == (True, "30m")
    assert "stop_signal" not in train and "restart" not in train
    assert isinstance(train["command"], list), "a shell would be the first process, and keep the signal to itself"
    assert train["command"][:2] == ["python", "recipes/sft_qwen2vl.py"]
    mounted = {volume.rpartition(":")[0] for volume in train["volumes"]}
    assert mounted == {volume.rpartition(":")[0] for volume in service()["volumes"]}
    written = {volume.split(":")[0] for volume in train["volumes"] if volume.endswith(":rw")}
    assert written == {"./outputs", "./cache/hf", "./cache/vision"}
    assert (train["environment"], train["shm_size"]) == (service()["environment"], service()["shm_size"])


def test_page_is_optional_read_only_and_for_this_machine_alone() -> None:
    app = yaml.safe_load(COMPOSE.read_text())["services"]["app"]
    assert (app["profiles"], app["build"], app["gpus"]) == (["app"], ".", "all")
    assert app["ports"] == ["127.0.0.1:7860:7860"]
    assert {volume.removesuffix(":ro") for volume in app["volumes"]} <= {
        volume.removesuffix(":rw") for volume in service()["volumes"]
    }
    assert set(app["environment"]) - set(service()["environment"]) == {"HF_HUB_OFFLINE=1"}
    flags = set(re.findall(r"--[a-z-]+", (PROJECT_ROOT / "recipes/app.py").read_text()))
    assert app["command"][:2] == ["python", "recipes/app.py"]
    assert {word for word in app["command"] if word.startswith("--")} <= flags


def test_mounted_folders_are_the_projects_own() -> None:
    """Each is relative and kept in git, or lies in a folder that is; Docker makes a missing one such as cache/hf."""
    tracked_folders = {file.split("/")[0] for file in tracked_files() if "/" in file}
    for volume in service()["volumes"]:
        host, container, mode = volume.split(":")
        assert host.startswith("./") and ".." not in Path(host).parts
        assert Path(host).parts[0] in tracked_folders
        assert (container.startswith("/workspace/"), mode) == (True, "rw")


def test_hugging_face_cache_is_the_mounted_one() -> None:
    environment = dict(entry.split("=", 1) for entry in service()["environment"])
    targets = {volume.split(":")[1] for volume in service()["volumes"]}
    assert environment["HF_HOME"] in targets


def ignore_patterns(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def build_context(root: Path, patterns: list[str]) -> set[str]:
    """Return the files that a build would send, by the Docker SDK's matcher, from a tree of the listed names."""
    for name in KEPT_OUT + TAKEN_IN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return {path for path in exclude_paths(str(root), patterns) if (root / path).is_file()}


def test_image_gets_the_sources_and_nothing_else(tmp_path: Path) -> None:
    assert build_context(tmp_path, ignore_patterns(DOCKERIGNORE.read_text())) == set(TAKEN_IN)


def test_ignore_check_sees_a_missing_line(tmp_path: Path) -> None:
    patterns = [line for line in ignore_patterns(DOCKERIGNORE.read_text()) if line != "data"]
    assert "data/demo/train.jsonl" in build_context(tmp_path, patterns)


def test_every_tracked_file_but_placeholders_is_taken_in(tmp_path: Path) -> None:
    """A pattern that is too wide would leave a source out of the image."""
    patterns = ignore_patterns(DOCKERIGNORE.read_text())
    tracked = set(tracked_files())
    for name in tracked:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    taken = {path for path in exclude_paths(str(tmp_path), patterns) if (tmp_path / path).is_file()}
    assert tracked - taken == {"data/.gitkeep", "outputs/.gitkeep", "cache/.gitkeep"}


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE, DOCKERIGNORE], ids=lambda path: path.name)
def test_no_path_of_a_machine(path: Path) -> None:
    found = re.findall(r"(?<![\w.])(?:/(?:home|root|Users|mnt|tmp|opt)/|[A-Z]:\\)\S*", path.read_text())
    assert found == []
