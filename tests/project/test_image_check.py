"""What make image-check builds on and how it reads the compose file; an engine does the rest, where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.metadata import parse_email

from data_prep.files import PROJECT_ROOT
from tests.image import base, check, engine
from tests.image.check import Fault, check_answer, check_files, interpolated, run_arguments
from tests.image.engine import NoEngine
from tests.project.documents import DOCS, README, commands_of


def test_without_an_engine_it_is_skipped_aloud(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.image.check"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("image-check SKIPPED: no docker command") and done.stdout.count("\n") == 1


def write_command(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_docker_command_is_the_first_that_builds_as_compose_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_command(tmp_path / "old", "docker", '[ -z "$DOCKER_BUILDKIT" ]')
    write_command(tmp_path / "whole", "docker", '[ "$1" = build ]')
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:{tmp_path / 'whole'}")
    assert engine.docker_command() == str(tmp_path / "whole" / "docker")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoEngine, match="no Docker engine runs, and only root"), engine.engine():
        pytest.fail("none runs")


def test_daemon_that_ends_at_once_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_command(tmp_path, "docker", '[ "$1" = build ]')
    write_command(tmp_path, "dockerd", "echo failed to start: no cgroups >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(NoEngine, match="can't be started here: failed to start: no cgroups"), engine.engine():
        pytest.fail("none runs")
    assert "safe-unsafe-docker-" not in os.environ.get("DOCKER_HOST", "")


def test_services_are_run_as_compose_would(tmp_path: Path) -> None:
    services = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"]
    arguments = {name: " ".join(run_arguments(each, tmp_path, {"UID": "7"})) for name, each in services.items()}
    for name, flags in arguments.items():
        assert "--user 7:1000" in flags and "--init" in flags and "--workdir /workspace" in flags, name
        assert "--env TRANSFORMERS_CACHE=/workspace/.cache/huggingface" in flags, name
    assert f"--volume {tmp_path}/cache/hf:/workspace/.cache/huggingface:rw" in arguments["vlm"]
    assert f"--volume {tmp_path}/outputs:/workspace/outputs:ro" in arguments["app"]
    with pytest.raises(Fault, match="'entrypoint' isn't known"):
        run_arguments({"entrypoint": "sh"}, tmp_path, {})


def test_variables_are_taken_as_compose_takes_them() -> None:
    assert interpolated("${UID:-1000}:${GID:-1000}", {"UID": "7"}) == "7:1000"
    assert interpolated("outputs/demo", {}) == "outputs/demo"


def test_stand_in_s_torch_wants_what_the_image_lacks_and_no_cuda() -> None:
    wheel = "\n".join(
        [
            *("Metadata-Version: 2.1", "Name: torch", "Version: 2.11.0", "Requires-Dist: filelock"),
            *(
                "Requires-Dist: cuda-toolkit==13.0.2",
                "Requires-Dist: nvidia-cudnn-cu13==9",
                "Requires-Dist: triton==3.6",
            ),
            *("Requires-Dist: sympy>=1.13.3", "", "Tensors.\n"),
        ]
    )
    found, unparsed = parse_email(base.without_cuda(wheel, "2.11.0+cu128"))
    assert (found["name"], found["version"], found["requires_dist"]) == (
        *("torch", "2.11.0+cu128"),
        ["filelock", "sympy>=1.13.3"],
    )
    assert unparsed == {}


def test_stand_in_reaches_packages_as_this_machine_does() -> None:
    listed = (
        ":env:.default-timeout='180'\nglobal.index-url='https://mirror.plant.example/simple'\n"
        "global.find-links='/wheels'\nglobal.extra-index-url='file:///wheels'\n"
    )
    assert base.indexes(listed) == "[global]\nindex-url = https://mirror.plant.example/simple\n"
    assert base.indexes("") == "[global]\n"


@pytest.mark.parametrize("said", ["", "SAFE", "SAFE\nUNSAFE\n", "safe\n", "I can't say\n"])
def test_anything_but_one_answer_is_a_fault(said: str) -> None:
    check_answer("UNSAFE\n")
    with pytest.raises(Fault):
        check_answer(said)


def test_what_is_left_in_the_code_or_isn_t_the_user_s_is_a_fault(tmp_path: Path) -> None:
    for name in ("recipes/app.py", "outputs/demo/safety.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    before = {"recipes", "recipes/app.py", "outputs"}
    check_files(tmp_path, before, os.getuid())
    with pytest.raises(Fault, match=r"outputs is the user's no longer, but \d+'s"):
        check_files(tmp_path, before, os.getuid() + 1)
    (tmp_path / "recipes/__pycache__").mkdir()
    with pytest.raises(Fault, match="recipes/__pycache__ was left in the mounted code"):
        check_files(tmp_path, before, os.getuid())


def test_job_in_the_image_is_the_documents_own() -> None:
    shown = " ".join(command for document in (README, *DOCS) for command in commands_of(document))
    for _, words in check.STEPS:
        assert words[1] in shown.split()
