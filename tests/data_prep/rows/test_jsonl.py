import json
import os
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError
from data_prep.labels import PROMPT
from data_prep.rows.jsonl import Row, image_path, read_rows, write_rows

GOOD = {"image": "frames/train/unsafe/0_tr12/0004.jpg", "prompt": PROMPT, "response": "UNSAFE"}


def jsonl(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_rows_are_written_as_the_contract_says_and_read_back(tmp_path: Path) -> None:
    rows = [Row(**GOOD), Row("frames/test/safe/é 'x/0000.jpg", PROMPT, "SAFE")]
    write_rows(tmp_path / "train.jsonl", rows)
    first, second = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert first == (
        '{"image": "frames/train/unsafe/0_tr12/0004.jpg", "prompt": "You are a workplace safety inspector reviewing '
        'CCTV footage. Classify the behavior as SAFE or UNSAFE. Answer with only one word.", '
        '"response": "UNSAFE"}'
    )
    assert list(json.loads(second)) == ["image", "prompt", "response"]
    assert read_rows(tmp_path / "train.jsonl") == rows


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    assert read_rows(jsonl(tmp_path, GOOD, "", GOOD)) == [Row(**GOOD)] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (json.dumps(GOOD)[:-5], "not a whole JSON object"),
        ("[1, 2]", "a row has exactly the keys image, prompt, response; found list"),
        ({**GOOD, "clip": "0_tr12"}, r"exactly the keys .*'clip'"),
        ({"image": "a.jpg", "prompt": PROMPT}, "exactly the keys"),
        ({**GOOD, "prompt": None}, "prompt must be a string, found NoneType"),
        ({**GOOD, "prompt": " "}, "prompt is empty"),
        ({**GOOD, "response": "Unsafe"}, "response 'Unsafe' is not one of SAFE, UNSAFE"),
        ({**GOOD, "image": "/etc/hostname"}, "absolute path"),
        ({**GOOD, "image": "\\\\host\\a.jpg"}, "absolute path"),
        ({**GOOD, "image": "C:/a.jpg"}, "absolute path"),
        ({**GOOD, "image": "~/a.jpg"}, "absolute path"),
        ({**GOOD, "image": "frames/../../a.jpg"}, "holds '..'"),
        ({**GOOD, "image": "frames\\..\\..\\a.jpg"}, "holds '..'"),
        ({**GOOD, "image": "http://host/a.jpg"}, "is a URL"),
        ({**GOOD, "image": "file:///etc/hostname"}, "is a URL"),
        ({**GOOD, "image": "data:image/png;base64,AA"}, "is a URL"),
        ({**GOOD, "image": ""}, "is not a path"),
        ({**GOOD, "image": "a\0.jpg"}, "is not a path"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_rows(jsonl(tmp_path, GOOD, line))
    assert str(error.value).startswith(f"{tmp_path}/train.jsonl:2: ")


@pytest.mark.parametrize("lines", [[], ["", ""]])
def test_empty_file(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl: holds no row; run data_prep/build_jsonl\.py again"):
        read_rows(jsonl(tmp_path, *lines))


def test_missing_file_and_other_encodings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl: no such file"):
        read_rows(tmp_path / "train.jsonl")
    (tmp_path / "train.jsonl").write_bytes(b'{"image": "\xff"}\n')
    with pytest.raises(InputError, match=r"train\.jsonl: not UTF-8 text"):
        read_rows(tmp_path / "train.jsonl")


def test_image_path_stays_inside_the_folder(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside.jpg"
    (data / "frames").mkdir(parents=True)
    outside.write_bytes(b"secret")
    (data / "frames" / "0000.jpg").write_bytes(b"frame")
    (data / "frames" / "inner.jpg").symlink_to("0000.jpg")
    (data / "frames" / "escape.jpg").symlink_to(outside)
    (data / "frames" / "up").symlink_to(tmp_path)
    os.mkfifo(data / "frames" / "pipe.jpg")
    assert image_path(data, "frames/0000.jpg", "x") == data.resolve() / "frames" / "0000.jpg"
    assert image_path(data, "frames/inner.jpg", "x") == data.resolve() / "frames" / "0000.jpg"
    for image, message in [
        ("frames/escape.jpg", "leads out of"),
        ("frames/up/outside.jpg", "leads out of"),
        ("frames/0001.jpg", "is missing"),
        ("frames", "is not a regular file"),
        ("frames/pipe.jpg", "is not a regular file"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            image_path(data, image, "train.jsonl:3")
        assert str(error.value).startswith("train.jsonl:3: ")


def test_a_data_folder_reached_through_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"frame")
    (tmp_path / "link").symlink_to("real")
    assert image_path(tmp_path / "link", "a.jpg", "x").read_bytes() == b"frame"
