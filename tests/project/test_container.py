"""The container's three files, checked without a Docker engine."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.utils.build import exclude_paths

from data_prep.files import PROJECT_ROOT
from tests.image.tree import KEPT_OUT, git, of_the_image, touch, tracked_files

SCRIPTS = Path(sysconfig.get_path("scripts"))
DOCKERFILE = PROJECT_ROOT / "Dockerfile"
COMPOSE = PROJECT_ROOT / "docker-compose.yml"
DOCKERIGNORE = PROJECT_ROOT / ".dockerignore"

TAKEN_IN = [
    "Makefile",
    "accelerate_config.yaml",
    "accelerate_config_multi.yaml",
    "constraints.txt",
    "pyproject.toml",
    "requirements.txt",
    "requirements-app.txt",
    "requirements-serve.txt",
    "benchmarks/bench_train.py",
    "data_prep/extract_frames.py",
    "recipes/configs/demo_cpu.yaml",
    "recipes/configs/my_run.yaml",
    "recipes/report/report.html.j2",
    "recipes/sft_qwen2vl.py",
    "tiny_base/pretrain.py",
    "tiny_base/weights/config.json",
    "tiny_base/weights/model.safetensors",
]


SERVICES = ("vlm", "train", "app", "serve")


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
        *("requirements.txt", "requirements-app.txt", "requirements-serve.txt", "constraints.txt", "pyproject.toml"),
        *("data_prep", "recipes"),
    ]
    assert all(any(file == name or file.startswith(f"{name}/") for file in tracked()) for name in copied)


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


def tracked() -> list[str]:
    if not (found := tracked_files()):
        pytest.skip("not a git checkout: what is tracked can't be asked")
    return found


def service(name: str = "vlm") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"][name]
    return found


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
        "user": "${UID:-1000}:${GID:-1000}",
        "volumes": [
            "./data:/workspace/data:rw",
            "./data_prep:/workspace/data_prep:rw",
            "./recipes:/workspace/recipes:rw",
            "./outputs:/workspace/outputs:rw",
            "./exports:/workspace/exports:rw",
            "./cache/hf:/workspace/.cache/huggingface:rw",
            "./cache/vision:/workspace/cache/vision:rw",
        ],
        "environment": [
            "NVIDIA_VISIBLE_DEVICES=all",
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            "HF_HOME=/workspace/.cache/huggingface",
            "TRANSFORMERS_CACHE=/workspace/.cache/huggingface",
            "HF_HUB_DISABLE_TELEMETRY=1",
        ],
        "init": True,
        "shm_size": "2gb",
        "stdin_open": True,
        "tty": True,
        "gpus": "all",
    }
    assert service() == expected


def test_training_is_a_process_of_its_own_that_can_be_stopped() -> None:
    """tests/recipes/training/test_sft_command.py runs and stops that very command."""
    train = service("train")
    assert (train["profiles"], train["build"], train["gpus"]) == (["train"], ".", "all")
    assert (train["init"], train["stop_grace_period"]) == (True, "5m")
    assert "stop_signal" not in train and "restart" not in train
    assert isinstance(train["command"], list), "a shell would be the first process, and keep the signal to itself"
    assert train["command"][:2] == ["python", "recipes/sft_qwen2vl.py"]
    mounted = {volume.rpartition(":")[0] for volume in train["volumes"]}
    exports = {"./exports:/workspace/exports"}
    assert mounted == {volume.rpartition(":")[0] for volume in service()["volumes"]} - exports
    written = {volume.split(":")[0] for volume in train["volumes"] if volume.endswith(":rw")}
    assert written == {"./outputs", "./cache/hf", "./cache/vision"}
    assert (train["environment"], train["shm_size"]) == (service()["environment"], service()["shm_size"])


def test_page_is_optional_read_only_and_for_this_machine_alone() -> None:
    app = service("app")
    assert (app["profiles"], app["build"], app["gpus"]) == (["app"], ".", "all")
    assert app["ports"] == ["127.0.0.1:7860:7860"]
    assert {volume.removesuffix(":ro") for volume in app["volumes"]} <= {
        volume.removesuffix(":rw") for volume in service()["volumes"]
    }
    assert set(app["environment"]) - set(service()["environment"]) == {"HF_HUB_OFFLINE=1"}
    flags = set(re.findall(r"--[a-z-]+", (PROJECT_ROOT / "recipes/app.py").read_text()))
    assert app["command"][:2] == ["python", "recipes/app.py"]
    assert {word for word in app["command"] if word.startswith("--")} <= flags


def test_service_over_http_is_as_the_page_is_and_asks_for_a_token() -> None:
    """Its process has a time to answer what it has accepted that is longer than the slowest caller's."""
    serve, app = service("serve"), service("app")
    for key in ("build", "working_dir", "user", "init", "volumes", "environment", "gpus"):
        assert serve[key] == app[key], key
    assert (serve["profiles"], serve["ports"]) == (["serve"], ["127.0.0.1:8000:8000"])
    assert serve["command"][:2] == ["python", "recipes/serve.py"]
    flags = [word for word in serve["command"] if word.startswith("--")]
    assert flags == ["--adapter", "--host", "--token-file"]
    assert (serve["stop_grace_period"], "restart" in serve) == ("2m", False)
    code = serve["healthcheck"]["test"]
    assert code[:3] == ["CMD", "python", "-c"] and "http://127.0.0.1:8000/health" in code[3]
    compile(code[3], "healthcheck", "exec")


@pytest.mark.parametrize("name", SERVICES)
def test_everything_runs_as_the_caller_below_an_init(name: str) -> None:
    """A shell doesn't pass its UID on, so compose reads it from .env, which a command of the README writes."""
    assert (service(name)["user"], service(name)["init"]) == ("${UID:-1000}:${GID:-1000}", True)
    assert "cap_add" not in service(name) and "privileged" not in service(name)


def test_whoever_the_caller_is_has_a_home_and_a_name_and_leaves_no_compiled_python() -> None:
    lines = instructions()
    home, names = (next(line for line in lines if word in line) for word in ("mkdir -m 1777", "HOME="))
    environment = dict(re.findall(r'(\w+)="?([^"\s]*)"?', names.removeprefix("ENV ")))
    assert environment == {"HOME": f"/workspace/{home.split()[-1]}", "USER": "user", "PYTHONDONTWRITEBYTECODE": "1"}
    # Set before pip runs, they would be its own: root's files in that home.
    assert lines.index(names) > position("RUN python3 -m pip install")


def test_mounted_folders_are_the_projects_own_and_stand_in_git() -> None:
    """Docker would make a missing one, and as root's."""
    folders = {parent.as_posix() for file in tracked() for parent in Path(file).parents}
    for volume in (volume for name in SERVICES for volume in service(name)["volumes"]):
        host, container, mode = volume.split(":")
        assert host.startswith("./") and ".." not in Path(host).parts
        assert Path(host).as_posix() in folders
        assert container.startswith("/workspace/") and mode in ("ro", "rw")
    assert all(volume.endswith(":rw") for volume in service()["volumes"])


def test_hugging_face_cache_is_the_mounted_one() -> None:
    environment = dict(entry.split("=", 1) for entry in service()["environment"])
    targets = {volume.split(":")[1] for volume in service()["volumes"]}
    assert environment["HF_HOME"] == environment["TRANSFORMERS_CACHE"]
    assert environment["HF_HOME"] in targets


def ignore_patterns(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def build_context(root: Path, names: Iterable[str], patterns: list[str]) -> set[str]:
    """Return the files that a build could copy, by the Docker SDK's matcher, from a tree of these names."""
    for name in names:
        touch(root, name)
    sent = {path for path in exclude_paths(str(root), patterns) if (root / path).is_file()}
    return sent - {"Dockerfile", ".dockerignore"}  # always sent, for the build itself


def test_image_gets_the_sources_and_nothing_else(tmp_path: Path) -> None:
    """make image-check has an engine judge."""
    patterns = ignore_patterns(DOCKERIGNORE.read_text())
    assert build_context(tmp_path, KEPT_OUT + TAKEN_IN, patterns) == set(TAKEN_IN)


@pytest.mark.parametrize(("line", "gets_in"), [("*", "token.txt"), ("**/.*", "data_prep/._clips.py")])
def test_ignore_check_sees_a_missing_line(tmp_path: Path, line: str, gets_in: str) -> None:
    patterns = [each for each in ignore_patterns(DOCKERIGNORE.read_text()) if each != line]
    assert gets_in in build_context(tmp_path, KEPT_OUT + TAKEN_IN, patterns)


def test_every_tracked_file_that_runs_is_taken_in(tmp_path: Path) -> None:
    """A list that is too short would leave a source out of the image."""
    patterns = ignore_patterns(DOCKERIGNORE.read_text())
    assert build_context(tmp_path, tracked(), patterns) == of_the_image()


@pytest.mark.parametrize(
    "name",
    [
        *("wheels/torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl", "dock.mp4", "clips/3_te1.MP4", "gate.MOV"),
        *("recipes/dock.webm", "a.avi", "a.mkv", "a.m4v", "a.wmv", "a.3gp", "a.ts", "a.mts", "a.h265", "a.dav"),
        *(
            ".env",
            "data/train.jsonl",
            "outputs/demo/safety.json",
            "exports/demo/model.safetensors",
            "cache/hf/token",
            "cache/vision/0a1b/0.safetensors",
        ),
    ],
)
def test_what_must_not_be_published_is_no_change_for_git(name: str) -> None:
    tracked()
    assert git("check-ignore", "--no-index", name).returncode == 0


def test_git_ignores_nothing_that_is_tracked() -> None:
    tracked()
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard").stdout == ""


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE, DOCKERIGNORE], ids=lambda path: path.name)
def test_no_path_of_a_machine(path: Path) -> None:
    found = re.findall(r"(?<![\w.])(?:/(?:home|root|Users|mnt|tmp|opt)/|[A-Z]:\\)\S*", path.read_text())
    assert found == []
