"""What a script prints, whatever is in a name and whatever the terminal can show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import InputError, one_line, printable
from data_prep.files import PROJECT_ROOT
from tests.tiny_data import make_clip, write_data

NAMES = ("caf\u00e9", "\u4e2d\u6587", "two\nlines\x1b[31m")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("caf\u00e9 \u4e2d", "caf\u00e9 \u4e2d"),
        ("a\nb\tc\x1b[0m\x7f", r"a\nb\tc\x1b[0m\x7f"),
        ("a\x85b\u2028c", r"a\x85b\u2028c"),
        (r"a\b", r"a\b"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_an_error_is_one_line_without_control_characters() -> None:
    assert one_line(InputError("a\nb \x1b[31mred")) == r"a b \x1b[31mred"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-8"},
    ],
)
def test_names_are_printed_on_any_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    clips = [
        make_clip(split, digit, f"{digit} {name}", "one")
        for split in ("train", "test")
        for digit in (0, 4)
        for name in NAMES
    ]
    write_data(tmp_path, clips)
    for flags in ([], ["--json"]):
        command = [sys.executable, "data_prep/audit.py", "--data", str(tmp_path), *flags]
        done = subprocess.run(command, cwd=PROJECT_ROOT, env={**os.environ, **environment}, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\x1b" not in done.stdout
        if flags:
            assert {
                Path(path).stem.partition(" ")[2] for path in json.loads(done.stdout)["identical_clips"][0]["paths"]
            } == {*NAMES}
