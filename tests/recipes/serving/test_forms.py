"""What a request's body holds."""

import tempfile

import pytest

from recipes.serving.forms import Parts, camera_of, is_form, read_form
from recipes.serving.refusals import Refused

TYPE = 'multipart/form-data; boundary="edge"'


def form(*parts: tuple[str, bytes]) -> bytes:
    """Return a form of parts, each with what stands after `form-data; ` in its header."""
    lines = [
        b"--edge\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (name.encode(), body) for name, body in parts
    ]
    return b"".join(lines) + b"--edge--\r\n"


@pytest.mark.parametrize(
    ("content_type", "is_one"),
    [(TYPE, True), ("Multipart/Form-Data", True), ("image/jpeg", False), ("", False), ("multipart/mixed", False)],
)
def test_forms_are_known(content_type: str, is_one: bool) -> None:
    assert is_form(content_type) == is_one


def test_every_part_but_the_camera_is_a_frame() -> None:
    body = form(
        ('name="b"; filename="2.jpg"', b"second\r\n--no edge"),
        ('name="camera"', "Tür 1".encode()),
        ('name="a"', b"first\0"),
        ('name="a"; filename=""', b""),
    )
    assert read_form(TYPE, body, 3) == Parts([b"second\r\n--no edge", b"first\0", b""], "Tür 1")


def test_large_part_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", pytest.fail)
    monkeypatch.setattr(tempfile, "TemporaryFile", pytest.fail)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", pytest.fail)
    large = bytes(5_000_000)
    assert read_form(TYPE, form(('name="f"; filename="f"', large)), 1).frames == [large]


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (form(('name="f"', b"a"), ('name="f"', b"b"), ('name="f"', b"c")), 413, "more than 2 frames"),
        (form(('name="camera"', b"a"), ('name="camera"', b"b")), 422, "camera stands twice"),
        (form(('name="camera"', b"a\nb")), 422, "camera has to be"),
        (form(('name="camera"', b"\xff")), 422, "camera has to be"),
        (form(("no=name", b"a")), 422, "damaged or cut off"),
        (form(('name="f"', b"a"))[:-6], 422, "damaged or cut off"),
        (b"nothing of a form", 422, "damaged or cut off"),
        (b"", 422, "damaged or cut off"),
    ],
)
def test_form_that_is_none_is_refused(body: bytes, status: int, line: str) -> None:
    with pytest.raises(Refused, match=line) as refusal:
        read_form(TYPE, body, 2)
    assert refusal.value.status == status


def test_form_without_a_boundary_is_refused() -> None:
    with pytest.raises(Refused, match="damaged or cut off"):
        read_form("multipart/form-data", form(('name="f"', b"a")), 2)


@pytest.mark.parametrize("name", [None, "gate", "Hof 3, Süd", "x" * 128])
def test_camera_comes_back_as_it_came(name: str | None) -> None:
    assert camera_of(name) == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a\tb", "a\u2028b", "\x1b[31m", "\ud800"])
def test_camera_that_is_no_line_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="printable"):
        camera_of(name)
