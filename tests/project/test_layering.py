"""Imports go one way: labels at the bottom, scripts at the top; no script is imported but by its tests."""

import ast
import sys
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from data_prep.files import PROJECT_ROOT

# Lower first. A module imports from its own folder and from those of the lines before; a script, which stands at the
# top of a package and ends in `if __name__ == "__main__"`, from anything but another script.
ROOMS = [
    {"data_prep.disk"},
    {"data_prep"},
    {"data_prep.media.bitstreams", "data_prep.media.mp4"},
    {"data_prep.media"},
    {"data_prep.clips"},
    {"data_prep.rows", "data_prep.demo"},
    {"data_prep.hub"},
    {"recipes.metrics", "recipes.layers", "recipes.ranks"},
    {"recipes.model"},
    {"recipes.adapter", "recipes.batches", "recipes.machine"},
    {"recipes.answering"},
    {"recipes.training", "recipes.report"},
    {"recipes.serving"},
    {"tiny_base"},
    {"benchmarks.damage", "benchmarks.made"},
    {"benchmarks.measuring"},
    {"benchmarks.arms"},
    {"benchmarks"},
]
HEIGHT = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
PACKAGES = ("data_prep", "recipes", "tiny_base", "benchmarks")
UNIX_ALONE = {"fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty"}
HEAVY = {"torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT_ROOT).with_suffix("").parts)


MODULES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((PROJECT_ROOT / package).rglob("*.py"))
    if path.name != "__init__.py"
}
SCRIPTS = {name for name, path in MODULES.items() if name.count(".") == 1 and "\nif __name__ ==" in path.read_text()}
PRODUCT = [name for name in MODULES if name.startswith(("data_prep.", "recipes."))]


def may_run(module: str, script: str) -> bool:
    """A benchmark times the project's own scripts."""
    return module.startswith("benchmarks.") and not script.startswith("benchmarks.")


def room_of(module: str) -> str:
    return module.rpartition(".")[0]


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Return the dotted names that a file imports; of `from a import b` both `a` and `a.b`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_folder_has_its_place() -> None:
    assert {room_of(module) for module in MODULES} - {"recipes"} == set(HEIGHT)
    assert {module for module in MODULES if room_of(module) == "recipes"} <= SCRIPTS


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    for imported in imports(MODULES[module]) & set(MODULES):
        assert imported not in SCRIPTS or may_run(module, imported), f"{module} imports the script {imported}"
        if not {module, imported} & SCRIPTS and room_of(imported) != room_of(module):
            assert HEIGHT[room_of(imported)] < HEIGHT[room_of(module)], f"{module} imports {imported}"


def test_no_imports_go_round() -> None:
    TopologicalSorter({module: imports(path) & set(MODULES) for module, path in MODULES.items()}).prepare()


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("data_prep.")])
def test_data_prep_knows_no_model(module: str) -> None:
    roots = {name.split(".")[0] for name in imports(MODULES[module])}
    assert not roots & (HEAVY | {"recipes"})


@pytest.mark.parametrize("module", PRODUCT)
def test_windows_gets_as_far_as_its_one_line(module: str) -> None:
    """run_script says that this isn't for Windows itself; an import that fails there would come before it."""
    assert not imports(MODULES[module], top_level_only=True) & UNIX_ALONE


@pytest.mark.parametrize("module", sorted(SCRIPTS & set(PRODUCT)))
def test_scripts_answer_mistakes_before_loading_torch(module: str) -> None:
    reached, waiting = set(), {module}
    while waiting:
        current = waiting.pop()
        reached.add(current)
        found = imports(MODULES[current], top_level_only=True)
        assert not {name.split(".")[0] for name in found} & HEAVY, f"{current} loads torch when it is imported"
        waiting |= (found & set(MODULES)) - reached


def test_no_file_or_folder_is_named_like_a_library() -> None:
    """A script's own folder comes first on the import path: what lies in it would stand in the library's place."""
    libraries = set(sys.stdlib_module_names) | set(packages_distributions())
    assert not {part for name in MODULES for part in name.split(".")[1:]} & (libraries - set(PACKAGES))
