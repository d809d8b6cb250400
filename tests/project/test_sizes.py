"""What is read at once stays small: a script goes straight down a page, a function does one thing."""

import ast
from pathlib import Path
from statistics import median

import pytest

from data_prep.files import PROJECT_ROOT

MOST_LINES_OF_A_SCRIPT = 120
MOST_LINES_OF_A_MODULE = 250
MOST_LINES_OF_A_FUNCTION = 40
MOST_LINES_OF_HALF_THE_FUNCTIONS = 10

PACKAGES = ("data_prep", "recipes", "benchmarks", "tiny_base")
MODULES = {
    str(path.relative_to(PROJECT_ROOT)): path
    for package in PACKAGES
    for path in sorted((PROJECT_ROOT / package).rglob("*.py"))
}
SCRIPTS = [
    name
    for name, path in MODULES.items()
    if name.startswith(("data_prep/", "recipes/")) and name.count("/") == 1 and "\nif __name__ ==" in path.read_text()
]


def lines_of_functions(path: Path) -> dict[str, int]:
    """Return the lines of each function by its name and place, methods and functions within others included."""
    return {
        f"{node.name}:{node.lineno}": node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }


def test_there_are_scripts() -> None:
    assert {"data_prep/extract_frames.py", "recipes/sft_qwen2vl.py", "recipes/infer.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_reads_straight_down_a_page(script: str) -> None:
    assert len(MODULES[script].read_text().splitlines()) <= MOST_LINES_OF_A_SCRIPT


@pytest.mark.parametrize("module", MODULES)
def test_module_and_its_functions_are_short(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= MOST_LINES_OF_A_MODULE
    functions = lines_of_functions(MODULES[module])
    assert {name: lines for name, lines in functions.items() if lines > MOST_LINES_OF_A_FUNCTION} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_most_functions_are_very_short(package: str) -> None:
    lengths = [
        lines
        for name, path in MODULES.items()
        if name.startswith(f"{package}/")
        for lines in lines_of_functions(path).values()
    ]
    assert median(lengths) <= MOST_LINES_OF_HALF_THE_FUNCTIONS
