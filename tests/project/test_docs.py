"""The documents show only commands that exist, with flags that exist, and figures that were measured."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from data_prep.files import PROJECT_ROOT
from recipes.training.settings import RecipeArguments
from tests.project.documents import (
    DOCS,
    DOCUMENTS,
    README,
    SMALL_BASE,
    anchors_of,
    blocks_of,
    code_of,
    commands_of,
    links_of,
    name_of,
    tracked_folders,
)
from tests.project.test_layering import PACKAGES, ROOMS

SFT = "recipes/sft_qwen2vl.py"
NEEDS_A_GPU = {
    "benchmarks/bench_bases.py",
    "benchmarks/bench_infer.py",
    "benchmarks/bench_plan.py",
    "benchmarks/bench_ranks.py",
    "benchmarks/bench_small_card.py",
    "benchmarks/bench_train.py",
    "tiny_base/pretrain.py",
}
# The demo's training many times, and evaluations of its adapters; their parts have tests of their own.
TAKES_LONG = {"benchmarks/bench_demo.py", "benchmarks/bench_doubts.py", "benchmarks/bench_operating_point.py"}
# Run by test_app.py, test_serve.py, test_doubts.py, test_export.py, test_examination.py, test_clip_audit.py,
# test_bench_*.py and test_demo.py.
OWN_TEST = {
    "recipes/app.py",
    "recipes/doctor.py",
    "recipes/doubts.py",
    "recipes/export.py",
    "recipes/serve.py",
    "benchmarks/bench_infer_cpu.py",
    "benchmarks/bench_serve.py",
    "data_prep/audit.py",
    "benchmarks/project_card.py",
    "benchmarks/bench_cameras.py",
    "benchmarks/bench_damage.py",
    "benchmarks/bench_export.py",
    "benchmarks/bench_frames.py",
    "benchmarks/fuzz_clips.py",
    "benchmarks/bench_start.py",
    "benchmarks/bench_report.py",
}
PACKAGES_OF_THE_SMALL_PROJECT = r"^(annotated-doc|groovy|idna|safe-unsafe) "
ACCELERATE_FLAGS = {"--config_file", "--multi_gpu", "--num_processes", "--quiet"}
WHERE_SETTINGS_ARE_TOLD = ("training", "evaluation", "answering", "machines")


def commands() -> list[str]:
    """Return every shell command of the documents, each once."""
    return sorted({command for document in DOCUMENTS for command in commands_of(document)})


@cache
def help_of(script: str) -> str:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@cache
def demo_steps() -> str:
    """Return the commands of `make demo`, which another test runs."""
    command = ["make", "--dry-run", "demo", f"VENV={sys.prefix}"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@cache
def setting_names() -> set[str]:
    from trl import ModelConfig, SFTConfig

    return {field.name for part in (RecipeArguments, SFTConfig, ModelConfig) for field in dataclasses.fields(part)}


def flags_of(script: str) -> set[str]:
    if script == SFT:
        return {f"--{name}" for name in setting_names() | {"config", "help"}}
    return set(re.findall(r"--[a-z][a-z0-9-]*", help_of(script)))


def check_script(words: list[str]) -> None:
    script, flags = words[0], [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    assert (PROJECT_ROOT / script).is_file()
    assert set(flags) <= flags_of(script)
    configs = [words[index + 1] for index, word in enumerate(words) if word == "--config"]
    assert all((PROJECT_ROOT / config).is_file() for config in configs)
    assert script in NEEDS_A_GPU | TAKES_LONG | OWN_TEST or script in demo_steps(), f"no test runs {script}"


def check_pip(words: list[str]) -> None:
    """The options exist, and so do the files; the pins in them are resolved by tests/project/test_pins.py."""
    done = subprocess.run([sys.executable, "-m", "pip", words[1], "--help"], capture_output=True, text=True, check=True)
    for word, value in zip(words[2:], [*words[3:], ""], strict=True):
        if word.startswith("-"):
            assert re.search(rf"^  .*(?<!\S){word}(?![\w-])", done.stdout, flags=re.MULTILINE), word
        if word in ("-r", "-c") and value != "/dev/stdin":
            assert (PROJECT_ROOT / value).is_file()


@pytest.mark.parametrize("command", commands())
def test_command_exists_and_is_run_by_a_test(command: str) -> None:
    before, _, piped = command.rpartition(" | ")
    assert not before or before.startswith("ls data/") or before == 'grep -v "^-e" requirements.txt'
    words = shlex.split(piped.replace("[", "").replace("]", ""))
    if words[0] == "python":
        check_script(words[1:])
    elif words[:2] == ["accelerate", "launch"]:
        script = words.index(SFT) if SFT in words else None
        launched = launch_command_parser().parse_args(words[2:])
        assert launched.config_file in (None, "accelerate_config.yaml", "accelerate_config_multi.yaml")
        assert (PROJECT_ROOT / launched.training_script).is_file()
        if script is not None:
            check_script(words[script:])
    elif words[0] == "torchrun":
        launched = get_args_parser().parse_args(words[1:])
        check_script([launched.training_script, *launched.training_script_args])
    elif words[0] == "make":
        done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=PROJECT_ROOT, capture_output=True, check=False)
        assert done.returncode == 0
    elif words[0] == "docker":
        compose = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())
        name = compose["services"]["vlm"]["container_name"]
        if words[2] == "--profile":
            assert words[3] in compose["services"][words[-1]]["profiles"]
        assert words[1:] in (
            ["compose", "up", "-d", "--build"],
            ["compose", "up", "-d", "--force-recreate"],
            ["exec", "-it", name, "bash"],
            ["compose", "--profile", "app", "up", "app"],
            ["compose", "--profile", "serve", "up", "-d", "serve"],
            ["compose", "--profile", "train", "up", "-d", "train"],
            ["compose", "--profile", "train", "logs", "-f", "train"],
            ["compose", "--profile", "train", "stop", "train"],
        )
    elif words[0] == "printf":
        assert command.endswith(">> .env")
    elif words[0] == "hf":
        assert (Path(sys.executable).parent / "hf").is_file()
        assert words[1:] == ["download", "Qwen/Qwen2-VL-7B-Instruct"]
    elif words[0] == "pip":
        check_pip(words)
    else:
        assert words in (
            ["source", ".venv/bin/activate"],
            ["python3", "-m", "venv", ".venv"],
            ["export", "HF_HOME=$PWD/cache/hf"],
        )


def test_each_command_stands_once() -> None:
    shown = Counter(command for document in DOCUMENTS for command in commands_of(document))
    assert {command for command, times in shown.items() if times > 1} == set()


def test_readme_shows_the_whole_job() -> None:
    (two, eight) = blocks_of(README.read_text(), "bash")
    assert two.split("\n")[:-1] == ["make demo", "make test"]
    steps = [next(word for word in line.split() if word.endswith(".py")) for line in eight.splitlines()]
    assert steps == [
        "data_prep/extract_frames.py",
        "data_prep/build_jsonl.py",
        "data_prep/push_dataset.py",
        "recipes/doctor.py",
        "recipes/sft_qwen2vl.py",
        "recipes/eval_qwen2vl.py",
        "recipes/infer.py",
        "recipes/app.py",
    ]
    rows = re.findall(r"^\| `(\w+\.py)` \|", README.read_text(), flags=re.MULTILINE)
    assert rows == [Path(step).name for step in steps]


def scripts() -> dict[str, str]:
    """Return the path of each script that the documents run, by its name."""
    named = {word for command in commands() for word in command.split() if word.endswith(".py")}
    return {Path(script).name: script for script in sorted(named)}


@cache
def flags_in_the_code() -> set[str]:
    """Return what any script takes, and training."""
    files = [path for package in PACKAGES for path in (PROJECT_ROOT / package).rglob("*.py")]
    taken = [flag for file in files for flag in re.findall(r'"(--[a-z-]+)"', file.read_text())]
    return flags_of(SFT) | ACCELERATE_FLAGS | set(taken)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_flags_named_in_passing_exist(document: Path) -> None:
    for code in code_of(document):
        words = code.split()
        script = scripts().get(words[0])
        if script or words[0].startswith("--"):
            flags = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert flags <= (flags_of(script) if script else flags_in_the_code()), code


@pytest.mark.parametrize("name", WHERE_SETTINGS_ARE_TOLD)
def test_settings_named_in_passing_exist(name: str) -> None:
    (document,) = [document for document in DOCS if document.stem == name]
    for code in code_of(document):
        setting = code.partition(":")[0]
        if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", setting):
            assert setting in setting_names(), code


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_targets_of_make_named_in_passing_exist(document: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (PROJECT_ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {code.split()[1] for code in code_of(document) if code.startswith("make ")} <= targets


def test_readme_is_one_page() -> None:
    assert len(README.read_bytes()) < 10_000


def test_readme_leads_to_every_document() -> None:
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in links_of(README)}
    assert set(DOCUMENTS) - {README} <= linked


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    """To a file or folder of the project, and where a heading is named, to one that stands there, once."""
    for link in links_of(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchors_of(target).count(anchor) == 1, link


def test_pictures_are_shown() -> None:
    shown = {(document.parent / link).resolve() for document in DOCUMENTS for link in links_of(document)}
    pictures = {path for path in (PROJECT_ROOT / "docs").iterdir() if path.suffix in (".png", ".jpg")}
    assert pictures <= shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_paths_named_in_passing_exist(document: Path) -> None:
    """Those within the project; what scripts make in data, outputs and cache isn't there yet."""
    tops = {folder for folder in tracked_folders() if "/" not in folder} - {"data", "outputs", "cache"}
    for code in code_of(document):
        if re.fullmatch(r"[\w.-]+(/[\w.*-]+)*/?", code) and code.partition("/")[0] in tops:
            assert list(PROJECT_ROOT.glob(code)), code


def tree_of_readme() -> list[str]:
    """Return the folders that the README's tree has a line of, each below the one that its line is indented under."""
    (block,) = [block for block in blocks_of(README.read_text(), "") if "data_prep/" in block]
    folders: list[str] = []
    for line in block.splitlines():
        indent, name, _ = re.fullmatch(r"((?:  )*)([\w.-]+)/ +(\S.*)", line).groups()  # type: ignore[union-attr]
        above = folders[-1].split("/") if folders else []
        folders.append("/".join([*above[: len(indent) // 2], name]))
    return folders


def test_tree_has_a_line_for_each_folder() -> None:
    """But for those of the caches, and for tests' that have the names of the packages' own."""
    packages = {folder for folder in tracked_folders() if (PROJECT_ROOT / folder / "__init__.py").is_file()}
    same = {f"tests/{folder}" for folder in packages}
    folders = {folder for folder in tracked_folders() if not folder.startswith("cache/")} - same
    assert tree_of_readme() == sorted(folders)


def test_order_of_imports_is_the_one_that_is_held() -> None:
    (design,) = [document for document in DOCS if document.stem == "design"]
    (block,) = [block for block in blocks_of(design.read_text(), "") if "data_prep.disk" in block]
    assert [line.split(", ") for line in block.splitlines()] == [sorted(rooms) for rooms in ROOMS]


def test_licence_is_the_same_everywhere() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert "## Licence\n\nApache-2.0, as the base model." in README.read_text()
    assert "\nlicense: apache-2.0\n" in SMALL_BASE.read_text()


def test_compose_is_told_who_the_caller_is(tmp_path: Path) -> None:
    (command,) = [command for command in commands() if command.startswith("printf")]
    (tmp_path / ".env").write_text("CONFIG=recipes/configs/my_run.yaml\n")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    told = f"CONFIG=recipes/configs/my_run.yaml\nUID={os.getuid()}\nGID={os.getgid()}\n"
    assert (tmp_path / ".env").read_text() == told
    assert {"UID", "GID"} <= set(re.findall(r"\$\{(\w+):-", (PROJECT_ROOT / "docker-compose.yml").read_text()))


def pip_command(start: str) -> str:
    (command,) = [command for command in commands() if start in command]
    return command


@pytest.fixture
def small_project(tmp_path: Path) -> Path:
    """The project with few requirements and no code, whose build is pinned to what isn't the newest."""
    project = tmp_path / "project"
    for package in ("data_prep", "recipes"):
        (project / package).mkdir(parents=True)
        (project / package / "__init__.py").touch()
    for name in ("pyproject.toml", "requirements-build.txt"):
        text = (PROJECT_ROOT / name).read_text()
        assert "hatchling==1.33.0" in text
        (project / name).write_text(text.replace("hatchling==1.33.0", "hatchling==1.32.4"))
    (project / "requirements.txt").write_text("idna==3.20\n-e .\n")
    (project / "requirements-app.txt").write_text("groovy==0.1.2\n")
    (project / "requirements-serve.txt").write_text("annotated-doc==0.0.7\n")
    (project / "constraints.txt").touch()
    return project


def test_packages_to_carry_along_are_enough_to_install_from_without_an_index(small_project: Path) -> None:
    """The build's own needs included. pip would pack this folder, data and all, for requirements.txt's last line."""
    download = pip_command("pip download").replace("pip download", f"{sys.executable} -m pip download")
    done = subprocess.run(["bash", "-c", download], cwd=small_project, capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr:
        pytest.skip("no package registry can be reached: nothing to download")
    assert done.returncode == 0, done.stderr
    assert not any(path.name.startswith("safe") for path in (small_project / "wheels").iterdir())
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=small_project, check=True)
    python = small_project / ".venv" / "bin" / "python"
    install = pip_command("pip install --no-index").replace("pip install", f"{python} -m pip install")
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH"))}
    done = subprocess.run(
        ["bash", "-c", install],
        cwd=small_project,
        env={**alone, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([python, "-m", "pip", "list"], env=alone, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(PACKAGES_OF_THE_SMALL_PROJECT, listed, re.MULTILINE)) == {
        *("annotated-doc", "groovy", "idna", "safe-unsafe")
    }


def test_nothing_in_the_tree_names_a_machine() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    for name in done.stdout.split("\n"):
        path = PROJECT_ROOT / name
        if path.is_file() and path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ""):
            assert str(PROJECT_ROOT) + "/" not in path.read_text(errors="replace"), name
