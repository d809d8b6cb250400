"""Frames and clips that a list leaves out of training: aloud, with their reasons, and never from test."""

import json
import re
from pathlib import Path

import pytest

from data_prep import build_jsonl
from data_prep.errors import InputError
from data_prep.rows.jsonl import read_rows
from data_prep.rows.left_out import read_left_out
from data_prep.rows.validation import split_frames
from tests.tiny_data import make_clip, many_clips, write_data

FRAME = "frames/train/unsafe/0_tr1/0001.jpg"
LIST = f"""\ufeff# what was ticked
{FRAME}\tlearned in no epoch

frames/train/safe/4_tr2\tits clip's other frames say otherwise
train/7_safe_carrying/7_tr0.mp4\tlearned in no epoch
{FRAME}\ta second reason
frames/train/safe/7_tr1/0000.jpg
"""
LEFT_OUT = {
    *(FRAME, "frames/train/safe/4_tr2/0000.jpg", "frames/train/safe/4_tr2/0001.jpg"),
    *("frames/train/safe/7_tr0/0000.jpg", "frames/train/safe/7_tr0/0001.jpg", "frames/train/safe/7_tr1/0000.jpg"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = write_data(tmp_path / "data", many_clips())
    (data / "list.txt").write_text(LIST, encoding="utf-8")
    return data


def test_what_is_listed_gets_no_row_and_all_else_stays_as_it_was(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_jsonl.main(["--data", str(data)]) == 0
    before, test = read_rows(data / "train.jsonl"), (data / "test.jsonl").read_bytes()
    assert json.loads((data / "audit.json").read_text())["left_out_by_list"] == []
    capsys.readouterr()
    assert build_jsonl.main(["--data", str(data), "--leave-out", str(data / "list.txt")]) == 0
    after = read_rows(data / "train.jsonl")
    assert after == [row for row in before if row.image not in LEFT_OUT]
    assert len(before) - len(after) == len(LEFT_OUT)
    assert (data / "test.jsonl").read_bytes() == test
    splits = split_frames(data)
    assert not LEFT_OUT & {frame.image for name in ("train", "validation") for frame in splits[name]}
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "6 frames left out by list.txt, 42 rows left; labels and test are as they were",
        "  3: learned in no epoch",
        "  2: its clip's other frames say otherwise",
        "  1: no reason given",
    ]
    assert json.loads((data / "audit.json").read_text())["left_out_by_list"] == [
        {"path": FRAME, "frames": 1, "reason": "learned in no epoch"},
        {"path": "frames/train/safe/4_tr2", "frames": 2, "reason": "its clip's other frames say otherwise"},
        {"path": "train/7_safe_carrying/7_tr0.mp4", "frames": 2, "reason": "learned in no epoch"},
        {"path": "frames/train/safe/7_tr1/0000.jpg", "frames": 1, "reason": "no reason given"},
    ]
    assert build_jsonl.main(["--data", str(data)]) == 0
    assert read_rows(data / "train.jsonl") == before, "without the list they are back"


def test_list_of_joined_data_is_read_by_each_of_its_folders(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page of data that were pushed from several folders names each frame with its folder before it."""
    (data / "list.txt").write_text(f"data/{FRAME}\tnever\nannex/{FRAME}\tnever\ndata/frames/train/safe/4_tr2\n")
    found = read_left_out(data / "list.txt", many_clips(), "data")
    assert [each.name for each in found] == [FRAME, "frames/train/safe/4_tr2"]
    assert f"list.txt: lines of other data folders: 1, the first 'annex/{FRAME}'; give" in capsys.readouterr().err
    with pytest.raises(InputError, match=re.escape("list.txt:3: 'frames/train/safe/4_tr9' is no frame or clip")):
        (data / "list.txt").write_text(f"data/{FRAME}\n\ndata/frames/train/safe/4_tr9\n")
        read_left_out(data / "list.txt", many_clips(), "data")
    (data / "list.txt").write_text("data/frames/test/safe/4_te0\n")
    with pytest.raises(InputError, match="is of the test split"):
        read_left_out(data / "list.txt", many_clips(), "data")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"frames/train/safe/4_tr0\n\nframes/test/safe/4_te0\n", "list.txt:3: 'frames/test/safe/4_te0' is of the test"),
        (b"frames/test/safe/4_te0/0001.jpg\tx\n", "list.txt:1: 'frames/test/safe/4_te0/0001.jpg' is of the test split"),
        (b"test/4_safe_walkway/4_te0.mp4\n", "list.txt:1: 'test/4_safe_walkway/4_te0.mp4' is of the test split"),
        (b"frames/train/safe/4_tr0/0002.jpg\n", "0002.jpg' is no frame or clip of clips.jsonl"),
        (b"4_tr0\n", "list.txt:1: '4_tr0' is no frame or clip"),
        (b"frames/train/safe/4_tr0 \xff\n", "list.txt: not UTF-8 text"),
        (None, "list.txt: no such file"),
    ],
    ids=["test clip", "test frame", "test clip by its path", "no sample", "no path", "not text", "missing"],
)
def test_what_can_t_be_left_out_is_refused_and_nothing_is_written(data: Path, content: bytes | None, said: str) -> None:
    build_jsonl.main(["--data", str(data)])
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file() and path.name != "list.txt"}
    (data / "list.txt").unlink()
    if content is not None:
        (data / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(said)):
        build_jsonl.main(["--data", str(data), "--leave-out", str(data / "list.txt")])
    assert before == {
        path.name: path.read_bytes() for path in data.iterdir() if path.is_file() and path.name != "list.txt"
    }


def test_label_that_is_left_out_whole_is_refused(tmp_path: Path) -> None:
    clips = [make_clip("train", 0, "0_tr0"), make_clip("train", 4, "4_tr0"), make_clip("test", 0, "0_te0")]
    data = write_data(tmp_path / "data", clips)
    (data / "list.txt").write_text("frames/train/safe/4_tr0\n")
    with pytest.raises(InputError, match=r"one class only, UNSAFE; .*; 2 frames were left out of it by --leave-out"):
        build_jsonl.main(["--data", str(data), "--leave-out", str(data / "list.txt")])


def test_empty_list_leaves_nothing_out(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "list.txt").write_text("\n# nothing was ticked\n")
    assert read_left_out(data / "list.txt", many_clips(), "data") == []
    assert build_jsonl.main(["--data", str(data), "--leave-out", str(data / "list.txt")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 frames left out by list.txt, 48 rows left")
