"""The changelog's table of formats: every version that the code holds, and every file that it writes."""

import ast
import re
from pathlib import Path

from data_prep.files import PROJECT_ROOT
from tests.project.documents import CHANGELOG

PACKAGES = ("data_prep", "recipes", "benchmarks")
VERSION = re.compile(r"_?LAYOUT|\w*_VERSION|UNVERSIONED")
FOREIGN = ("data_prep/media/bitstreams", "data_prep/media/mp4")  # versions of what codecs and containers wrote
# Files of base models, of `datasets` and of pip, which are read alone.
READ_ALONE = {"config.json", "model.safetensors", "model.safetensors.index.json", "dataset_info.json"}
FILE_NAME = re.compile(r"[\w.]+\.(json|jsonl|safetensors|png|html|sha256s)")


def table() -> list[list[str]]:
    """Return the cells of the table's rows."""
    text, _, _ = CHANGELOG.read_text().partition("\n## ")
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return rows[1:]


def trees() -> dict[Path, ast.Module]:
    files = [file for package in PACKAGES for file in sorted((PROJECT_ROOT / package).rglob("*.py"))]
    return {file.relative_to(PROJECT_ROOT): ast.parse(file.read_text()) for file in files}


def versions() -> list[tuple[str, str, int]]:
    """Return the constants that hold versions of formats, each by its name, its folder and its value."""
    return sorted(
        (target.id, file.parent.as_posix(), node.value.value)
        for file, tree in trees().items()
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and type(node.value.value) is int
        for target in node.targets
        if isinstance(target, ast.Name) and VERSION.fullmatch(target.id) and not file.as_posix().startswith(FOREIGN)
    )


def test_every_version_is_told_with_its_value() -> None:
    held = " ".join(row[2] for row in table())
    told = re.findall(r"`(\w+)` of `([\w/]+)` is (\d+)", held)
    assert sorted((name, folder, int(value)) for name, folder, value in told) == versions()
    assert len(versions()) >= 9


def test_what_a_row_says_is_the_version_is_what_is_held() -> None:
    for _, version, held, *_ in table():
        values = re.findall(r"is (\d+)", held)
        assert not values or set(values) >= set(re.findall(r"(?<![\w.])\d+(?!\w)", version)), version


def test_every_file_that_is_written_has_a_row() -> None:
    named = {
        node.value
        for file, tree in trees().items()
        if file.parts[0] != "benchmarks"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and FILE_NAME.fullmatch(node.value)
    }
    listed = " ".join(cell for row in table() for cell in row)
    assert {name for name in named - READ_ALONE if name not in listed} == set()
    assert len(named) > 12
