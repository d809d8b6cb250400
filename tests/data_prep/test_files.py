import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from data_prep.console import run_script
from data_prep.files import PROJECT_ROOT, from_root, sha256_of_file, to_root, write_atomic, write_json, write_together


def test_relative_paths_start_at_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert (PROJECT_ROOT / "pyproject.toml").is_file()
    assert from_root("data/demo") == PROJECT_ROOT / "data" / "demo"
    assert from_root(tmp_path) == tmp_path
    assert to_root(PROJECT_ROOT / "data" / "demo") == "data/demo"
    assert to_root(tmp_path) == tmp_path.as_posix()


def test_tilde_is_home_before_a_user_s_name_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_root("~/data") == tmp_path / "data"
    assert from_root("~nobody-of-this-name.jpg") == PROJECT_ROOT / "~nobody-of-this-name.jpg"


def test_write_atomic_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"first")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_keeps_the_old_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"größe": [1, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "größe": [\n    1,\n    null\n  ]\n}\n'
    assert json.loads((tmp_path / "a.json").read_text()) == {"größe": [1, None]}


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_write_json_refuses_what_json_has_not(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


def test_sha256_of_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_files_that_belong_together_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_together(tmp_path, {"plots/a.svg": b"1", "report": b"1"})
    assert (tmp_path / "plots" / "a.svg").read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plots", "report"]
    written: list[int] = []

    def full_disk(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_together(tmp_path, {"plots/a.svg": b"2", "report": b"2"})
    assert [(tmp_path / name).read_bytes() for name in ("plots/a.svg", "report")] == [b"1", b"1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plots", "report"]


def test_windows_itself_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as ended:
        run_script(lambda argv: pytest.fail("it was started"))
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "WSL 2 or Docker Desktop" in err
