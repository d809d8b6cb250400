from pathlib import Path, PurePosixPath

import pytest

from data_prep.clips.classes import OwnClass, read_classes
from data_prep.errors import InputError

FILE = """\
blocked_exit: UNSAFE
Clear Exit: {label: SAFE, description: "the way out is
  free"}
bay_2/blocked_exit: SAFE
"*_spill": UNSAFE
oil_spill: SAFE
line ?/open: UNSAFE
"""


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "classes.yaml").write_text(text)
    return tmp_path / "classes.yaml"


@pytest.mark.parametrize(
    ("folder", "key"),
    [
        ("blocked_exit", "blocked_exit"),
        ("loading bay/Blocked-Exit/2026", "blocked_exit"),  # whatever is above it and below it
        ("clear_exit", "Clear Exit"),
        ("bay_2/blocked_exit", "bay_2/blocked_exit"),  # more folders say more
        ("bay_2/night/blocked_exit", "blocked_exit"),  # they don't follow each other
        ("water_spill", "*_spill"),
        ("oil_spill", "oil_spill"),  # a name goes before a pattern
        ("line 3/open", "line ?/open"),
        ("line_33/open", None),
        ("open", None),
        ("blocked_exit_2", None),
        ("spill", None),
        ("", None),
    ],
)
def test_line_that_names_a_folder(tmp_path: Path, folder: str, key: str | None) -> None:
    found = read_classes(write(tmp_path, FILE)).of_folder(PurePosixPath(folder))
    assert (found and found.folder) == key


def test_labels_and_descriptions(tmp_path: Path) -> None:
    lines = read_classes(write(tmp_path, FILE)).lines
    assert lines[0] == OwnClass("blocked_exit", "UNSAFE", None)
    assert lines[1] == OwnClass("Clear Exit", "SAFE", "the way out is free")


def test_two_lines_that_name_one_folder(tmp_path: Path) -> None:
    classes = read_classes(write(tmp_path, "gate: SAFE\nopen: UNSAFE\n"))
    with pytest.raises(InputError, match=r"'gate/open' is named by two lines of classes\.yaml, 'gate' and 'open'"):
        classes.of_folder(PurePosixPath("gate/open"))


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("bay/half_open", "add one: half_open: UNSAFE (or SAFE)"),
        ("half-open 2.b", "add one: half-open 2.b: UNSAFE (or SAFE)"),
        ("bay/12", 'add one: "12": UNSAFE (or SAFE)'),
        ("bay/a: b", 'add one: "a: b": UNSAFE (or SAFE)'),
    ],
)
def test_missing_line_is_shown_as_it_is_to_be_written(tmp_path: Path, folder: str, line: str) -> None:
    path = write(tmp_path, FILE)
    said = read_classes(path).missing(PurePosixPath(folder))
    assert line in said and repr(folder) in said
    written = said.partition("add one: ")[2].partition(" (or SAFE)")[0]
    path.write_text(f"{FILE}{written}\n")
    found = read_classes(path).of_folder(PurePosixPath(folder))
    assert found and found.label == "UNSAFE"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no line"),
        ("- a\n- b\n", "holds no line"),
        ("a: [\n", "not YAML"),
        ("a: SAFE\na: UNSAFE\n", "not YAML ('a' stands twice)"),
        ("a: SAFE\nA : UNSAFE\n", "'a' and 'A' name the same folder"),
        ("a: safe\nb: UNSAFE\n", "'a' is 'safe', which is not one of SAFE, UNSAFE"),
        ("a: true\nb: UNSAFE\n", "'a' is True"),
        ("a: [SAFE]\nb: UNSAFE\n", "'a' is ['SAFE']"),
        ("12: SAFE\nb: UNSAFE\n", "12 isn't read as a name; put it into quotes"),
        ("off: SAFE\nb: UNSAFE\n", "False isn't read as a name"),
        ("a: SAFE\nb: SAFE\n", "no line is UNSAFE; both SAFE and UNSAFE are needed"),
        ("a: {label: SAFE, camera: 3}\nb: UNSAFE\n", "'a' has 'camera', which isn't known"),
        ("a: {label: SAFE, description: 3}\nb: UNSAFE\n", "'a' has the description 3"),
        ("a: {description: x}\nb: UNSAFE\n", "'a' is None"),
        ("a//b: SAFE\nb: UNSAFE\n", "'a//b' names no folder"),
        ("4_safe walkway: UNSAFE\nb: SAFE\n", "'4_safe walkway' is UNSAFE here and SAFE in the published data set"),
        ("a: !!python/name:os.system\n", "not YAML"),
    ],
)
def test_file_that_says_nothing_usable(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_classes(write(tmp_path, text))
    assert message in str(error.value)
    assert "classes.yaml" in str(error.value)


def test_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--classes .*gone\.yaml: no such file; a line is"):
        read_classes(tmp_path / "gone.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not YAML"):
        read_classes(tmp_path / "binary.yaml")
