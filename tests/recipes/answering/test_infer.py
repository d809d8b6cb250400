"""One frame never ends a stream, and what is answered is what the adapter says. On the run that is kept."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes import infer
from recipes.answering.stream import answer, paths_from, printable
from tests.conftest import Kept
from tests.data_prep.media.test_images import damaged_exif
from tests.recipes.adapter.test_safety_record import RECORD


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of frames with which something is odd, each of a grey of its own."""
    folder = tmp_path_factory.mktemp("frames")
    for grey, name in enumerate((b"good.jpg", b"~name.jpg", b"\xff\xfe.jpg", "é.jpg".encode())):
        Image.new("L", (64, 48), 40 * grey).save(folder / os.fsdecode(name))
    Image.new("L", (48, 64), 200).save(folder / "exif.jpg", exif=damaged_exif(6))
    Image.new("L", (7, 7), 90).save(folder / "seven.jpg")
    (folder / "torn.jpg").write_bytes((folder / "good.jpg").read_bytes()[:200])
    os.mkfifo(folder / "pipe.jpg")
    return folder


def stream(kept: Kept, lines: bytes, capfd: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, list[str]]:
    """Return the exit status, stdout and the lines on stderr of infer.py --stream with those bytes on stdin."""
    readable, writable = os.pipe()
    os.write(writable, lines)
    os.close(writable)
    before = os.dup(0)
    os.dup2(readable, 0)
    try:
        status = infer.main(["--adapter", str(kept.run), "--stream", *flags])
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(readable)
    out, err = capfd.readouterr()
    return status, out, err.splitlines()


def test_one_frame_never_ends_a_stream(kept: Kept, frames: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = [b"exif.jpg", b"seven.jpg", b"~name.jpg", b"\xff\xfe.jpg", b"torn.jpg", b"pipe.jpg", b"absent\xff.jpg"]
    names += [b"nul\0.jpg", b"x" * 300, b"", "é.jpg".encode(), b"good.jpg"]
    lines = b"".join(b"%s/%s\n" % (os.fsencode(frames), name) for name in names)
    status, out, said = stream(kept, lines + b"\n~nobody-of-this-name.jpg\n", capfd, "--json")
    found = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert (status, said) == (2, [])
    answered = [Path(each["image"]).name for each in found if "label" in each]
    assert answered == ["exif.jpg", "seven.jpg", "~name.jpg", r"\xff\xfe.jpg", "é.jpg", "good.jpg"]
    errors = {Path(each["image"]).name: each["error"] for each in found if "error" in each}
    assert list(errors) == [
        *("torn.jpg", "pipe.jpg", r"absent\xff.jpg", "nul\0.jpg", "x" * 300, frames.name, "~nobody-of-this-name.jpg")
    ]
    assert "not a readable image" in errors["torn.jpg"] and errors["pipe.jpg"].endswith("is no file")
    assert errors[r"absent\xff.jpg"].endswith(r"absent\xff.jpg: no such image")
    assert len(found) == len(names) + 1


def test_empty_stream_is_said(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^--stream: no path came on stdin; write one a line"):
        stream(kept, b"\n", capfd)
    assert capfd.readouterr().out == ""


def test_without_json_a_bad_frame_is_a_line_on_stderr(
    kept: Kept, frames: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = os.fsencode(frames)
    lines = b"%s/good.jpg\n%s/absent\xff.jpg\n%s/good.jpg\r\n" % (folder, folder, folder)
    status, out, said = stream(kept, lines, capfd)
    assert (status, len(out.splitlines())) == (2, 2)
    assert set(out.split()) <= {"SAFE", "UNSAFE"}
    assert said == [rf"error: {frames}/absent\xff.jpg: no such image"]


def test_a_question_s_answer_is_no_frame_s(kept: Kept, frames: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What comes on stdin is all paths, also while the adapter is being loaded."""
    status, out, _ = stream(kept, b"y\n" + os.fsencode(frames) + b"/good.jpg\n", capfd, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["image"] for each in found] == ["y", str(frames / "good.jpg")]
    assert (status, found[0]["error"]) == (2, "y: no such image")


def test_images_are_named_as_they_are(
    kept: Kept, frames: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recipes.answering.stream.PROJECT_ROOT", frames)
    status = infer.main(["--adapter", str(kept.run), "--json", "--image", "~name.jpg", os.fsdecode(b"\xff\xfe.jpg")])
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert (status, [each["image"] for each in found]) == (0, ["~name.jpg", r"\xff\xfe.jpg"])


def test_p_that_is_no_number_gets_a_line_and_no_answer(
    kept: Kept, frames: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    from recipes.answering.scoring import Scorer

    monkeypatch.setattr(Scorer, "on_device", lambda *_: torch.tensor([torch.nan]))
    for flags in ((), ("--prior", "0.1")):
        status = infer.main(["--adapter", str(kept.run), "--image", str(frames / "good.jpg"), *flags])
        out, err = capfd.readouterr()
        assert (status, out) == (2, "")
        assert err.startswith("error: P(UNSAFE) is no number, so there is no answer")


class Certain:
    """A model whose P(UNSAFE) is 0.75 whatever it is shown."""

    record = replace(RECORD, threshold=0.7, threshold_from="macro_f1 on 68 validation frames")

    def p_unsafe(self, images: list[Any]) -> list[float]:
        return [0.75] * len(images)


def test_threshold_that_a_rule_chose_moves_with_the_stated_prior(frames: Path) -> None:
    """Odds times 1/9: P is 0.25 and the threshold below it, so the answer stays."""
    model: Any = Certain()
    found = answer(str(frames / "good.jpg"), model, 0.1)
    assert (found["label"], found["p_unsafe"], found["threshold"]) == (
        "UNSAFE",
        pytest.approx(0.25),
        pytest.approx(7 / 34),
    )
    assert answer(str(frames / "good.jpg"), model, None)["threshold"] == 0.7


def test_paths_come_as_they_were_written() -> None:
    lines: list[Any] = [b"a b.jpg\r\n", b"\n", b" \xff.jpg\n", b"last"]
    assert list(paths_from(lines)) == ["a b.jpg", " \udcff.jpg", "last"]
    assert [printable(path) for path in ("é", "\udcff")] == ["é", r"\xff"]
    assert PROJECT_ROOT.is_absolute()
