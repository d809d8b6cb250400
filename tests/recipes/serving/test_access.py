"""Who may ask."""

from pathlib import Path

import pytest

from data_prep.errors import InputError
from recipes.serving.access import shows, token_for


def test_this_machine_alone_needs_no_token() -> None:
    assert token_for("127.0.0.1", None) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "127.0.0.2", "::1", "192.168.1.4"])
def test_any_other_host_needs_one(host: str) -> None:
    with pytest.raises(InputError, match="--token-file"):
        token_for(host, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_file_s_line_is_the_token(tmp_path: Path, host: str) -> None:
    (tmp_path / "token").write_text("c0ffee-_~+/=.\r\n")
    assert token_for(host, tmp_path / "token") == b"c0ffee-_~+/=."


@pytest.mark.parametrize("content", ["", "\n", "two\nlines\n", "two words", "tökén", "a\0b"])
def test_file_without_a_token_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(InputError, match="has to hold one line"):
        token_for("127.0.0.1", tmp_path / "token")


def test_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        token_for("127.0.0.1", tmp_path / "token")


@pytest.mark.parametrize(
    ("authorization", "may"),
    [
        ("Bearer c0ffee", True),
        ("bearer  c0ffee ", True),
        ("Bearer c0ffe", False),
        ("Bearer c0ffee0", False),
        ("Bearer C0FFEE", False),
        ("Basic c0ffee", False),
        ("c0ffee", False),
        ("Bearer", False),
        ("Bearer \xfc", False),
        ("", False),
        (None, False),
    ],
)
def test_token_is_shown_whole(authorization: str | None, may: bool) -> None:
    assert shows(b"c0ffee", authorization) == may
