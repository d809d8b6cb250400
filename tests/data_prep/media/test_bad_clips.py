"""One bad clip fails with its name, and the others are extracted as they are without it."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from data_prep import extract_frames
from data_prep.clips import extraction, plan
from data_prep.clips.jsonl import read_clips
from data_prep.clips.records import Clip
from tests.made_clips import make_dataset

WALK, SAFE_WALK = "0_safe_walkway_violation", "4_safe_walkway"
CLIPS = {
    f"{split}/{folder}/{number}.mp4": 1
    for split in ("train", "test")
    for folder in (WALK, SAFE_WALK)
    for number in range(1, 4)
}
BAD = f"train/{WALK}/2.mp4"
_extract_clip, _hash_clip = extraction.extract_clip, plan.hash_clip


def extract_or_die(source: Path, folder: Path, clip: Clip) -> Any:
    """Extract a clip; of two, die with half a frame written."""
    if clip.path == BAD:
        (folder / "0007.jpg").write_bytes(b"half a frame")
        os.kill(os.getpid(), signal.SIGKILL)
    if clip.path == BAD.replace("2.mp4", "3.mp4"):
        os.abort()
    return _extract_clip(source, folder, clip)


def hash_or_die(root: Path, clip: Clip) -> Clip:
    if clip.path == BAD:
        os.abort()
    return _hash_clip(root, clip)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("extracted")
    make_dataset(data, CLIPS)
    assert run(data) == 0
    return data


@pytest.fixture
def data(extracted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(extracted, tmp_path / "data"))


@pytest.fixture
def fresh(data: Path) -> Path:
    shutil.rmtree(data / "frames")
    (data / "clips.jsonl").unlink()
    return data


def run(data: Path, *flags: str) -> int:
    return extract_frames.main(["--data", str(data), "--workers", "2", *flags])


def frames(data: Path) -> dict[str, bytes]:
    return {
        path.relative_to(data).as_posix(): path.read_bytes()
        for path in sorted((data / "frames").rglob("*"))
        if path.is_file()
    }


def reasons(data: Path) -> dict[str, str | None]:
    return {clip.path: clip.reason for clip in read_clips(data / "clips.jsonl") if clip.status != "ok"}


def test_decoders_that_take_their_process_down(
    fresh: Path, extracted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "extract_clip", extract_or_die)
        assert run(fresh) == 1
    killed, aborted = BAD, BAD.replace("2.mp4", "3.mp4")
    assert reasons(fresh) == {
        killed: "the process that decoded it died (SIGKILL: out of memory?)",
        aborted: "the process that decoded it died (SIGABRT)",
    }
    captured = capsys.readouterr()
    assert f"failed: {killed}: the process that decoded it died (SIGKILL: out of memory?)\n" in captured.err
    assert captured.out.startswith("12 clips, 10 frames; 12 decoded, 0 unchanged; 10 ok, 0 partial, 2 failed; ")
    lost = {f"frames/train/unsafe/{number}/0000.jpg" for number in (2, 3)}
    assert frames(fresh) == {path: content for path, content in frames(extracted).items() if path not in lost}
    assert run(fresh) == 0
    assert frames(fresh) == frames(extracted)


def test_a_process_that_dies_while_it_reads(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "hash_clip", hash_or_die)
    assert run(fresh) == 1
    assert reasons(fresh) == {BAD: "the process that read it died (SIGABRT)"}
    assert len(frames(fresh)) == 11
