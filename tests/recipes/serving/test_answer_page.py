"""What the page does with a file, without a browser and without a model; test_app drives the page itself."""

import errno
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from data_prep.clips.jsonl import write_clips
from data_prep.errors import InputError
from data_prep.media.frame_format import FrameFormat
from recipes.serving import answers, strip
from recipes.serving.address import check_port
from recipes.serving.answer_page import remove, take
from recipes.serving.answers import frames_of
from recipes.serving.examples import examples_in
from recipes.serving.strip import Seen, answer_file, as_strip
from tests.made_clips import times, write_mp4
from tests.tiny_data import make_clip


def brightness(image: Image.Image) -> float:
    return float(np.asarray(image).mean()) / 255


def last(path: Path | None, threshold: float = 0.5) -> tuple[list[Seen], str]:
    *_, end = answer_file(None if path is None else str(path), threshold, brightness, FrameFormat())
    return end


def test_frame_is_scored_and_shown_with_its_answer(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (204, 204, 204)).save(tmp_path / "a<b>.png")
    (frame,), shown = last(tmp_path / "a<b>.png")
    assert frame.p_unsafe == pytest.approx(0.8)
    assert "<b class='UNSAFE'>UNSAFE</b>" in shown and "P(UNSAFE) 0.800" in shown
    assert "a&lt;b&gt;.png" in shown and "a<b>" not in shown
    assert re.search(r"role='status'>\d+\.\d\d s in all, ", shown)
    assert frame.picture.startswith("data:image/jpeg;base64,")


def test_clip_is_looked_at_once_a_second_and_shown_as_it_goes(tmp_path: Path) -> None:
    write_mp4(tmp_path / "clip.mp4", times(34, 10))
    steps = list(answer_file(str(tmp_path / "clip.mp4"), 0.5, brightness, FrameFormat()))
    assert [len(frames) for frames, _ in steps[:1]] == [1]
    frames, shown = steps[-1]
    assert [frame.where for frame in frames] == [f"second {k}" for k in range(len(frames))] and len(frames) == 4
    assert f"{len(frames)} frames: " in shown and "verdict" not in shown


def test_threshold_alone_decides_what_a_strip_says() -> None:
    frames = [Seen("second 0", "data:,", 0.4), Seen("second 1", "data:,", 0.6)]
    for threshold, counts in ((0.5, "1 UNSAFE, 1 SAFE"), (0.7, "0 UNSAFE, 2 SAFE"), (0.4, "2 UNSAFE, 0 SAFE")):
        assert f"2 frames: {counts}" in as_strip(frames, threshold)


def test_long_clip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_SECONDS", 2)
    write_mp4(tmp_path / "clip.mp4", times(40, 10))
    with pytest.raises(InputError, match=r"clip\.mp4 lasts longer than 2 s; cut it"):
        list(frames_of(tmp_path / "clip.mp4", FrameFormat()))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", b"words", "notes.txt is neither a frame (JPEG, PNG) nor a clip (MP4)"),
        ("frame.jpg", b"words", "frame.jpg: not a readable image"),
        ("clip.mp4", b"words", "clip.mp4: not a readable clip"),
        ("clip.mp4", b"", "clip.mp4: not a readable clip"),
    ],
)
def test_trouble_is_one_line_and_no_frame(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    frames, shown = last(tmp_path / name)
    assert frames == []
    assert shown.startswith("<p class='trouble' role='alert'>") and said in shown


def test_file_taken_away_leaves_nothing_shown() -> None:
    assert last(None) == ([], strip.NOTHING_YET)


def test_port_that_is_taken_is_named_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} of 127\.0\.0\.1 can't be had .*; name another with --port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(InputError, match="--port 0 is no address"):
        check_port("127.0.0.1", 0)


def test_each_visitor_s_upload_is_its_own(tmp_path: Path) -> None:
    """Gradio names uploads by their content: the same file, dropped twice, has one name."""
    upload = tmp_path / "hash" / "frame.png"
    upload.parent.mkdir()
    Image.new("RGB", (40, 30), (204, 204, 204)).save(upload)
    first, second = take(str(upload), tmp_path), take(str(upload), tmp_path)
    assert first and second and first != second and Path(first).name == "frame.png"
    remove(first)
    upload.unlink()  # as Gradio's sweep does
    (frame,), _ = last(Path(second))
    assert frame.p_unsafe == pytest.approx(0.8)
    for path in (second, second, None):
        remove(path)
    assert [path for path in tmp_path.rglob("*") if path != upload.parent] == []


def test_upload_is_copied_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> NoReturn:
        raise OSError(errno.EPERM, "Operation not permitted")

    (tmp_path / "frame.png").write_bytes(b"picture")
    monkeypatch.setattr("os.link", refuse)
    own = take(str(tmp_path / "frame.png"), tmp_path)
    assert own is not None and Path(own).read_bytes() == b"picture"
    full = shutil.copyfile
    monkeypatch.setattr("shutil.copyfile", lambda path, own: full(path, "/dev/full"))
    with pytest.raises(gr.Error, match=r"frame\.png: No space left on device"):
        take(str(tmp_path / "frame.png"), tmp_path)
    assert len(list(tmp_path.glob("taken-*"))) == 1


def test_upload_that_was_swept_away_before_it_was_taken_is_said(tmp_path: Path) -> None:
    with pytest.raises(gr.Error, match=r"frame\.png is gone already; drop it again"):
        take(str(tmp_path / "frame.png"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert take(None, tmp_path) is None


def test_examples_are_frames_and_clips_and_no_litter(tmp_path: Path) -> None:
    names = ("frames/test/safe/4_te1/0002.jpg", "Safe and Unsafe Behaviours Dataset/test/4_safe_walkway/4_te1.mp4")
    litter = ("frames/test/safe/@eaDir/0002.jpg", "Safe and Unsafe Behaviours Dataset/test/4_safe_walkway/._4_te1.mp4")
    for name in (*names, *litter):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path for _, path in examples_in(tmp_path)] == [tmp_path / name for name in names]


def test_examples_of_a_data_set_without_folders_of_splits(tmp_path: Path) -> None:
    learnt, tested = (
        replace(clip, path=f"gate/{clip.video_id}.mp4", split_from="day")
        for clip in (make_clip("train", 0, "0_tr0"), make_clip("test", 0, "0_te0"))
    )
    write_clips(tmp_path / "clips.jsonl", [learnt, tested])
    (tmp_path / "clips" / "gate").mkdir(parents=True)
    for clip in (learnt, tested):
        (tmp_path / "clips" / clip.path).touch()
    assert examples_in(tmp_path) == [("a clip", tmp_path / "clips/gate/0_te0.mp4")]
