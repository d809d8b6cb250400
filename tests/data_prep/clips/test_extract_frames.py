import errno
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from data_prep import build_jsonl, extract_frames
from data_prep.clips import extraction, plan, workers
from data_prep.clips.archive import DATASET_FOLDER
from data_prep.clips.jsonl import read_clips, write_clips
from data_prep.clips.workers import Pool
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from data_prep.media.frame_format import FrameFormat
from data_prep.media.video import Video
from tests.made_clips import make_dataset, number_of, picture, real_clip, times, write_audio_mp4, write_mp4
from tests.tiny_data import unversioned

WALK, PANEL, SAFE_WALK = "0_safe_walkway_violation", "2_opened_panel cover", "4_safe_walkway"
CLIPS = {
    f"train/{WALK}/0_tr1.mp4": 2,
    f"train/{PANEL}/2_tr1.mp4": 1,
    f"train/{SAFE_WALK}/0_tr1.mp4": 3,  # the same stem in the same split
    f"test/{SAFE_WALK}/4_te1.mp4": 2,
}
FRAMES = [
    "frames/test/safe/4_te1/0000.jpg",
    "frames/test/safe/4_te1/0001.jpg",
    "frames/train/safe/4_safe_walkway__0_tr1/0000.jpg",
    "frames/train/safe/4_safe_walkway__0_tr1/0001.jpg",
    "frames/train/safe/4_safe_walkway__0_tr1/0002.jpg",
    "frames/train/unsafe/0_tr1/0000.jpg",
    "frames/train/unsafe/0_tr1/0001.jpg",
    "frames/train/unsafe/2_tr1/0000.jpg",
]


class Here(Executor):
    """Does at once, in this process, what is submitted: tests can look on and put others in the place of its parts."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that a test starts work in processes of their own, as does test_bad_clips.py."""
    monkeypatch.setattr(extract_frames, "processes_here", lambda count: nullcontext(Pool(Here, at_once=count)))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("made")
    make_dataset(data, CLIPS)
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """Return a data folder of its own, with the four clips and nothing else."""
    shutil.copytree(made / DATASET_FOLDER, tmp_path / "data" / DATASET_FOLDER)
    return tmp_path / "data"


def run(data: Path, *flags: str) -> int:
    return extract_frames.main(["--data", str(data), "--workers", "1", *flags])


def tree(data: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that extraction writes, by its path; an empty folder counts as a file."""
    found = [data / "clips.jsonl", *(data / "frames").rglob("*")]
    return {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in found
        if path.is_file() or not any(path.iterdir())
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the paths of the clips that are decoded from here on."""
    paths: list[str] = []
    original = extraction.extract_clip

    def spy(source: Path, folder: Path, clip: Any) -> Any:
        paths.append(clip.path)
        return original(source, folder, clip)

    monkeypatch.setattr(extraction, "extract_clip", spy)
    yield paths


def test_frames_and_records(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data) == 0
    assert sorted(tree(data)) == ["clips.jsonl", *FRAMES]
    shown = [number_of(Image.open(data / path)) for path in FRAMES]
    assert shown == [60, 65, 40, 45, 50, 0, 5, 20]  # 5 fps; clip n starts with picture 20 n
    clips = {clip.path: clip for clip in read_clips(data / "clips.jsonl")}
    assert list(clips) == sorted(CLIPS)
    assert {path: clip.samples for path, clip in clips.items()} == {path: tuple(range(n)) for path, n in CLIPS.items()}
    assert {(clip.extractor, clip.faults) for clip in clips.values()} == {(2, ())}
    panel = clips[f"train/{PANEL}/2_tr1.mp4"]
    assert (panel.source_class, panel.label, panel.status) == ("2_opened_panel_cover", "UNSAFE", "ok")
    assert (panel.width, panel.height, panel.settings.fps, panel.settings.jpeg_quality) == (64, 48, 1.0, 90)
    assert str(data) not in (data / "clips.jsonl").read_text()
    captured = capsys.readouterr()
    assert captured.out.startswith("4 clips, 8 frames; 4 decoded, 0 unchanged; 4 ok, 0 partial, 0 failed; ")
    assert captured.err == ""


def test_a_second_run_decodes_nothing_and_changes_nothing(data: Path, decoded: list[str]) -> None:
    run(data)
    first, stamps = tree(data), [(data / path).stat().st_mtime_ns for path in FRAMES]
    decoded.clear()
    run(data)
    assert decoded == []
    assert (tree(data), [(data / path).stat().st_mtime_ns for path in FRAMES]) == (first, stamps)


def test_only_a_changed_clip_is_extracted_again(data: Path, decoded: list[str]) -> None:
    run(data)
    changed = f"train/{WALK}/0_tr1.mp4"
    write_mp4(data / DATASET_FOLDER / changed, times(5, 5), first_number=100)
    decoded.clear()
    run(data)
    assert decoded == [changed]
    assert names(data / "frames/train/unsafe/0_tr1") == ["0000.jpg"]
    assert number_of(Image.open(data / "frames/train/unsafe/0_tr1/0000.jpg")) == 100


def test_a_clip_that_lost_a_frame_is_extracted_again(data: Path, decoded: list[str]) -> None:
    run(data)
    first = tree(data)
    (data / FRAMES[0]).unlink()
    decoded.clear()
    run(data)
    assert decoded == [f"test/{SAFE_WALK}/4_te1.mp4"]
    assert tree(data) == first


def test_other_settings_extract_again(data: Path, decoded: list[str]) -> None:
    run(data)
    decoded.clear()
    run(data, "--fps", "2.5", "--jpeg-quality", "70")
    assert sorted(decoded) == sorted(CLIPS)
    shown = [number_of(Image.open(data / f"frames/train/unsafe/0_tr1/000{sample}.jpg")) for sample in range(5)]
    assert shown == [0, 2, 4, 6, 8]
    assert {(clip.settings.fps, clip.settings.jpeg_quality) for clip in read_clips(data / "clips.jsonl")} == {(2.5, 70)}


@pytest.mark.parametrize(("side", "size"), [(32, (32, 24)), (64, (64, 48)), (1000, (64, 48))])
def test_frames_are_shrunk_to_a_side_and_never_enlarged(data: Path, side: int, size: tuple[int, int]) -> None:
    run(data, "--max-side", str(side))
    assert Image.open(data / "frames/train/unsafe/0_tr1/0001.jpg").size == size
    clip = next(clip for clip in read_clips(data / "clips.jsonl") if clip.video_id == "0_tr1")
    assert (clip.width, clip.height, clip.settings.max_side) == (*size, side)


def test_settings_interrupted_and_taken_back(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record never speaks for frames of other settings, even where both make the same number of them."""
    run(data)
    first = tree(data)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run(data, "--jpeg-quality", "10")
    run(data)
    assert tree(data) == first


def as_extracted_by_an_earlier_version(data: Path) -> None:
    """Have the records be those of a version that told of none, and one of their frames be wrong."""
    clips = read_clips(data / "clips.jsonl")
    (data / "clips.jsonl").write_text("".join(f"{unversioned(clip)}\n" for clip in clips))
    shutil.copy(data / FRAMES[1], data / FRAMES[0])


EARLIER = "4 clips were extracted by an earlier version, whose samples could be wrong: extracting them anew\n"


def test_clips_of_an_earlier_extractor_are_extracted_anew_aloud(
    data: Path, decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(data)
    first = tree(data)
    as_extracted_by_an_earlier_version(data)
    decoded.clear()
    capsys.readouterr()
    assert run(data) == 0
    assert (sorted(decoded), tree(data)) == (sorted(CLIPS), first)
    assert capsys.readouterr().err == EARLIER
    decoded.clear()
    assert run(data) == 0
    assert (decoded, capsys.readouterr().err) == ([], "")


@pytest.mark.parametrize("number", [1, 3])
def test_extracting_anew_ends_the_same_when_it_was_interrupted(
    data: Path, number: int, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data)
    first = tree(data)
    as_extracted_by_an_earlier_version(data)
    with monkeypatch.context() as patch:
        interrupt_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            run(data)
    assert {clip.extractor for clip in read_clips(data / "clips.jsonl")} == {2}
    decoded.clear()
    assert run(data) == 0
    assert (len(decoded), tree(data)) == (5 - number, first)


def test_an_interrupted_run_of_an_earlier_extractor_goes_on(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data)
    first = tree(data)
    clips = read_clips(data / "clips.jsonl")
    records = [unversioned(clips[0]), *(unversioned(clip, status="pending", frames=0) for clip in clips[1:])]
    (data / "clips.jsonl").write_text("\n".join(records))
    capsys.readouterr()
    assert run(data) == 0
    assert "1 clips were extracted by an earlier version" in capsys.readouterr().err
    assert tree(data) == first


def test_records_of_a_later_extractor_are_left_as_they_are(data: Path) -> None:
    run(data)
    later = (data / "clips.jsonl").read_text().replace('"extractor": 2', '"extractor": 3')
    (data / "clips.jsonl").write_text(later)
    before = tree(data)
    with pytest.raises(InputError, match=r"clips\.jsonl:1: extractor 3 is a later version's.*update the project"):
        run(data)
    assert tree(data) == before


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have every clip be one that shows frames in these slots alone, the last after a pause of months."""
    slots = [0, 1, 4, 9999, 10000, 15724800]

    def samples(video: Video, fps: object) -> Iterator[tuple[int, Image.Image]]:
        for slot in slots:
            yield slot, Image.fromarray(picture(slot % 256)).convert("RGBX")

    monkeypatch.setattr(Video, "samples", samples)
    monkeypatch.setattr(Video, "faults", Counter({"times that jump": 3}))
    return slots


def test_slots_without_a_frame_have_no_sample(
    data: Path, gaps: list[int], decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    assert run(data) == 0
    assert time.monotonic() - started < 5
    assert capsys.readouterr().out.startswith("4 clips, 24 frames; 4 decoded, 0 unchanged; 0 ok, 4 partial, 0 failed; ")
    for clip in read_clips(data / "clips.jsonl"):
        assert clip.samples == tuple(gaps)
        assert (clip.status, clip.faults) == ("partial", (("times that jump", 3),))
        assert {Path(path).name for path in clip.frame_paths} == set(names(data / clip.folder))
        shown = [number_of(Image.open(data / path)) for path in clip.frame_paths]
        assert shown == [slot % 256 for slot in gaps]
    decoded.clear()
    assert run(data) == 0
    assert decoded == []
    folder = data / "frames/train/unsafe/0_tr1"
    (folder / "0004.jpg").rename(folder / "0002.jpg")  # as many frames as before
    assert run(data) == 0
    assert decoded == [f"train/{WALK}/0_tr1.mp4"]


def interrupt_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Have the run interrupted when it comes to its `number`th clip."""
    original, calls = extraction.extract_clip, []

    def interrupted(source: Path, folder: Path, clip: Any) -> Any:
        calls.append(clip)
        (folder / "0000.jpg").write_bytes(b"half a frame")
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(source, folder, clip)

    patch.setattr(extraction, "extract_clip", interrupted)


def test_an_interrupted_run_keeps_its_finished_clips(
    data: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run(data)
    assert [clip.status for clip in read_clips(data / "clips.jsonl")] == ["ok", "ok", "pending", "pending"]
    assert not list((data / "frames").rglob(".*"))
    done, decoded[:] = decoded[:2], []
    assert run(data) == 0
    assert sorted([*done, *decoded]) == sorted(CLIPS)
    assert sorted(tree(data)) == ["clips.jsonl", *FRAMES]


def test_an_emptied_frame_is_extracted_again(data: Path) -> None:
    assert run(data) == 0
    frame = min(data.glob("frames/*/*/*/0000.jpg"))
    before = frame.read_bytes()
    frame.write_bytes(b"")
    assert run(data) == 0
    assert frame.read_bytes() == before


def test_a_full_disk_keeps_finished_clips(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = extraction._save_frame

    def full(image: Image.Image, path: Path, frame_format: FrameFormat) -> tuple[int, int]:
        if path.name == "0001.jpg":
            raise OSError(28, "No space left on device", str(path))
        return original(image, path, frame_format)

    monkeypatch.setattr(extraction, "_save_frame", full)
    make_dataset(data, {f"test/{SAFE_WALK}/4_te1.mp4": 1})
    with pytest.raises(OSError, match="No space left on device"):
        run(data)
    assert [clip.status for clip in read_clips(data / "clips.jsonl")] == ["ok", "pending", "pending", "pending"]
    assert [path.name for path in (data / "frames").rglob("*") if path.is_file()] == ["0000.jpg"]


def test_frames_of_a_vanished_clip_go_and_foreign_ones_stay(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data)
    (data / DATASET_FOLDER / f"train/{WALK}/0_tr1.mp4").unlink()
    foreign = data / "frames/train/unsafe/not_ours/0000.jpg"
    foreign.parent.mkdir()
    foreign.write_bytes(b"frame")
    run(data)
    assert (
        "removed frames/train/unsafe/0_tr1: its clip is no longer in the data set, or can't be read"
        in capsys.readouterr().err
    )
    assert names(data / "frames/train/unsafe") == ["2_tr1", "not_ours"]
    # The namesake keeps the video_id it was once given.
    assert names(data / "frames/train/safe") == ["4_safe_walkway__0_tr1"]


def test_failed_and_partial_clips(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data / DATASET_FOLDER / "train" / WALK
    write_audio_mp4(folder / "sound.mp4")
    Image.fromarray(picture(3)).save(folder / "png.mp4", format="PNG")
    cut = write_mp4(folder / "cut.mp4", times(50, 5), container_options={"movflags": "faststart"})
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 3 // 4])
    assert run(data) == 1
    err = capsys.readouterr().err
    assert f"failed: train/{WALK}/sound.mp4: holds no video, only sound or data: take it out\n" in err
    assert f"failed: train/{WALK}/png.mp4: a PNG picture, no mp4: " in err
    assert f"partial: train/{WALK}/cut.mp4: " in err
    clips = {Path(clip.path).stem: clip for clip in read_clips(data / "clips.jsonl")}
    assert (clips["sound"].status, clips["sound"].frames, clips["sound"].width) == ("failed", 0, None)
    assert clips["cut"].status == "partial"
    assert clips["cut"].faults and clips["sound"].faults == ()
    assert clips["cut"].frames == len(names(data / "frames/train/unsafe/cut")) > 0
    assert not (data / "frames/train/unsafe/sound").exists()
    first = tree(data)
    assert run(data, "--skip-bad") == 0
    assert tree(data) == first


def test_a_clip_that_no_longer_decodes_loses_its_frames(data: Path) -> None:
    run(data)
    (data / DATASET_FOLDER / f"train/{WALK}/0_tr1.mp4").write_bytes(b"broken")
    assert run(data) == 1
    assert names(data / "frames/train/unsafe") == ["2_tr1"]


UNREAD = [f"train/{WALK}/0_tr1.mp4", f"test/{SAFE_WALK}/4_te1.mp4"]


def fail_to_read(patch: pytest.MonkeyPatch, paths: list[str]) -> None:
    original = plan.sha256_of_file

    def read(path: Path) -> str:
        if path.as_posix().endswith(tuple(paths)):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return original(path)

    patch.setattr(plan, "sha256_of_file", read)


def test_clips_that_cannot_be_read_fail_alone_and_are_tried_again(
    data: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(data)
    first = tree(data)
    with monkeypatch.context() as patch:
        fail_to_read(patch, UNREAD)
        decoded.clear()
        capsys.readouterr()
        assert run(data) == 1
        assert run(data, "--skip-bad") == 0
    assert decoded == []
    captured = capsys.readouterr()
    counts = "4 clips, 4 frames; 0 decoded, 2 unchanged; 2 ok, 0 partial, 2 failed; "
    assert [line.startswith(counts) for line in captured.out.splitlines()] == [True, True]
    for path in UNREAD:
        assert captured.err.count(f"failed: {path}: cannot be read (Input/output error)\n") == 2
    clips = {clip.path: clip for clip in read_clips(data / "clips.jsonl")}
    assert {(clips[path].sha256, clips[path].status) for path in UNREAD} == {(None, "failed")}
    assert names(data / "frames/train/unsafe") == ["2_tr1"]
    assert run(data) == 0
    assert (sorted(decoded), tree(data)) == (sorted(UNREAD), first)


def test_a_clip_that_vanishes_between_listing_and_reading_or_decoding(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {data / DATASET_FOLDER / path for path in UNREAD}
    hash_clip, extract_clip = plan.hash_clip, extraction.extract_clip

    def before_reading(root: Path, clip: Any) -> Any:
        if clip.path == UNREAD[0]:
            (root / clip.path).unlink()
        return hash_clip(root, clip)

    def before_decoding(source: Path, folder: Path, clip: Any) -> Any:
        if clip.path == UNREAD[1]:
            source.unlink()
            source.mkdir()
        return extract_clip(source, folder, clip)

    monkeypatch.setattr(plan, "hash_clip", before_reading)
    monkeypatch.setattr(extraction, "extract_clip", before_decoding)
    assert run(data) == 1
    assert not any(source.is_file() for source in sources)
    assert {clip.path: clip.reason for clip in read_clips(data / "clips.jsonl") if clip.status != "ok"} == {
        UNREAD[0]: "cannot be read (No such file or directory)",
        UNREAD[1]: "cannot be read (Is a directory)",
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, "Input/output error"), "cannot be read to its end (Input/output error)"),
        (MemoryError(), "its reading failed (MemoryError: )"),
        (IndexError("index out of range"), "its reading failed (IndexError: index out of range)"),
    ],
)
def test_whatever_reading_a_clip_raises_costs_that_clip_alone(
    data: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    original = Video.samples

    def samples(video: Video, fps: Fraction) -> Iterator[tuple[int, Image.Image]]:
        for number, each in enumerate(original(video, fps)):
            if number == 1 and video._path.name == "4_te1.mp4":
                raise type(error)(*error.args)  # the parameter outlives the test, and would keep the traceback's frames
            yield each

    monkeypatch.setattr(Video, "samples", samples)
    assert run(data) == 1
    assert [clip.reason for clip in read_clips(data / "clips.jsonl")] == [reason, None, None, None]
    assert not (data / "frames/test/safe/4_te1").exists()


def test_litter_among_frames_costs_nothing(data: Path, decoded: list[str]) -> None:
    run(data)
    litter_frames(data)
    decoded.clear()
    assert run(data) == 0
    assert decoded == []


def litter_frames(data: Path) -> None:
    for folder in ("", "train/", "train/unsafe/", "train/unsafe/0_tr1/"):
        for name in ("@eaDir", ".snapshot"):
            (data / "frames" / folder / name).mkdir()
            (data / "frames" / folder / name / "0000.jpg").touch()
        for name in (".DS_Store", "Thumbs.db", ".nfs0001", "._0000.jpg"):
            (data / "frames" / folder / name).touch()


def test_what_nfs_keeps_of_old_frames_is_left_hidden(
    data: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(data)
    first = tree(data)
    litter_frames(data)
    (data / FRAMES[5]).unlink()
    unlink = os.unlink

    def busy(path: Any, **options: Any) -> None:
        if Path(path).name.startswith(".nfs"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        unlink(path, **options)

    decoded.clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", busy)
        assert run(data) == 0
    assert decoded == [f"train/{WALK}/0_tr1.mp4"]
    assert capsys.readouterr().err.count("could be removed; the next run tries again\n") >= 1
    assert [path.name for path in (data / "frames/train/unsafe").glob(".extracting-*/*")] == [".nfs0001"]
    assert run(data) == 0
    assert not list((data / "frames/train/unsafe").glob(".extracting-*"))
    for path, content in first.items():
        assert tree(data)[path] == content


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Return a data folder of twelve extracted clips, the test split's first."""
    data = tmp_path / "many"
    make_dataset(data, {f"{split}/{WALK}/{number}.mp4": 1 for split in ("test", "train") for number in range(6)})
    assert run(data) == 0
    return data


def remove_sources(data: Path, count: int) -> None:
    for path in sorted((data / DATASET_FOLDER).rglob("*.mp4"))[-count:]:
        path.unlink()


def test_a_handful_of_clips_may_vanish(many: Path) -> None:
    remove_sources(many, 5)
    assert run(many) == 0
    assert (len(read_clips(many / "clips.jsonl")), len(list(many.glob("frames/*/*/*")))) == (7, 7)


@pytest.mark.parametrize("unreadable", [0, 1, 6])
def test_more_are_refused_and_stay_unless_that_is_asked_for(
    many: Path, unreadable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tree(many)
    if unreadable < 6:
        remove_sources(many, 6 - unreadable)
    fail_to_read(monkeypatch, [f"test/{WALK}/{number}.mp4" for number in range(unreadable)])
    with pytest.raises(InputError) as error:
        run(many)
    assert str(error.value).startswith(f"6 of the 12 clips that {many}/frames holds frames of are not in {many}/")
    assert "or can't be read, the first " in str(error.value)
    assert "nothing was removed" in str(error.value)
    assert tree(many) == first
    assert run(many, "--remove-vanished", "--skip-bad") == 0
    assert len(list(many.glob("frames/*/*/*"))) == 6


def test_another_data_set_is_refused_even_where_clips_are_few(data: Path, tmp_path: Path) -> None:
    run(data)
    first = tree(data)
    other = make_dataset(tmp_path / "other", {f"train/{WALK}/a.mp4": 1, f"test/{WALK}/b.mp4": 1})
    with pytest.raises(InputError, match=r"4 of the 4 clips that .* name their data set with --dataset"):
        run(data, "--dataset", str(other))
    assert tree(data) == first


def test_sources_of_a_renamed_class_folder_have_not_vanished(many: Path) -> None:
    for split in ("train", "test"):
        folder = many / DATASET_FOLDER / split / WALK
        folder.rename(folder.with_name("0 Safe-Walkway Violation"))
    assert run(many) == 0


def test_rows_are_built_when_the_sources_were_deleted(data: Path) -> None:
    run(data)
    shutil.rmtree(data / DATASET_FOLDER)
    with pytest.raises(InputError, match="no data set found"):
        run(data)
    assert build_jsonl.main(["--data", str(data)]) == 0


def test_clips_that_share_a_folder_by_case_part(data: Path, decoded: list[str]) -> None:
    """Names from a file system where they were two folders. Where they are one, neither's frames can be trusted."""
    run(data)
    source = data / DATASET_FOLDER / f"train/{WALK}/0_tr1.mp4"
    shutil.copy(source, source.with_name("0_TR1.mp4"))
    clips = read_clips(data / "clips.jsonl")
    clip = next(clip for clip in clips if clip.video_id == "0_tr1")
    upper = replace(clip, path=f"train/{WALK}/0_TR1.mp4", video_id="0_TR1")
    write_clips(data / "clips.jsonl", [*clips, upper])
    shutil.copytree(data / clip.folder, data / upper.folder)
    decoded.clear()
    assert run(data) == 0
    assert sorted(decoded) == [upper.path, clip.path]
    assert names(data / "frames/train/unsafe") == ["0_TR1", f"{WALK}__0_tr1", "2_tr1"]


def test_one_folder_by_two_names_is_not_removed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file system has it that knows no case; here a link stands for the other name."""
    run(data)
    clips = read_clips(data / "clips.jsonl")
    clip = next(clip for clip in clips if clip.video_id == "0_tr1")
    upper = replace(clip, path=f"train/{WALK}/gone.mp4", video_id="0_TR1")
    (data / upper.folder).symlink_to("0_tr1")
    plan._remove_lost(data, [*clips, upper], clips)
    assert names(data / clip.folder) == ["0000.jpg", "0001.jpg"]


def test_names_that_break_lines_are_told_in_one(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / DATASET_FOLDER / f"train/{WALK}/two\nlines\x1b[31m.mp4").write_bytes(b"text")
    assert run(data) == 1
    assert capsys.readouterr().err.startswith(f"failed: train/{WALK}/two\\nlines\\x1b[31m.mp4: ")


def test_what_is_left_is_counted_aloud(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.avi", "b.avi", "c.mkv", "._d.mp4"):
        (data / DATASET_FOLDER / "test" / SAFE_WALK / name).write_bytes(b"x")
    run(data)
    assert "left, because only .mp4 files in class folders are clips: 2 .avi, 1 .mkv\n" in capsys.readouterr().err


def test_a_second_extractor_is_refused(data: Path) -> None:
    with (data / extract_frames.LOCK_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"another extract_frames\.py is working in"):
            run(data)
    assert run(data) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fps", "0"], "fps 0.0 is not a positive number"),
        (["--fps", "nan"], "fps nan is not"),
        (["--jpeg-quality", "100"], "outside 1 to 95"),
        (["--max-side", "27"], "below 28 pixels"),
        (["--workers", "0"], "at least 1"),
        (["--dataset", "nowhere/at/all"], "no such folder"),
    ],
)
def test_bad_flags(data: Path, flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(data, *flags)


def test_bad_input_is_one_line_and_fast(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(script(tmp_path), capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 5
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no data set found")
    assert done.stderr.count("\n") == 1


def script(data: Path) -> list[str]:
    path = PROJECT_ROOT / "data_prep" / "extract_frames.py"
    return [sys.executable, str(path), "--data", str(data), "--workers", "2"]


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder whose eight clips take a while, and were extracted without interruption."""
    data = tmp_path_factory.mktemp("slow")
    clip = write_mp4(data / "clip.mp4", times(300, 5), size=(640, 480))
    for number in range(4):
        for split, folder in (("train", WALK), ("test", SAFE_WALK)):
            copy = data / DATASET_FOLDER / split / folder / f"{number}.mp4"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, copy)
    clip.unlink()
    subprocess.run(script(data), check=True, capture_output=True)
    assert len(tree(data)) == 1 + 8 * 60
    return data


@pytest.mark.parametrize("folders", [0, 1, 5])
def test_killed_and_run_again_ends_with_the_same_bytes(slow: Path, tmp_path: Path, folders: int) -> None:
    """SIGKILL leaves the workers alive for a while; the run that follows at once must not mind them."""
    (tmp_path / DATASET_FOLDER).symlink_to(slow / DATASET_FOLDER)
    with subprocess.Popen(script(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not has_got_to(tmp_path / "frames", folders):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    for folder in final_folders(tmp_path / "frames"):
        assert len(names(folder)) == 60  # whole at its final path
    assert list((tmp_path / "frames").glob("*/*/.*"))  # something was being written
    assert "pending" in {clip.status for clip in read_clips(tmp_path / "clips.jsonl")}
    subprocess.run(script(tmp_path), check=True, capture_output=True)
    assert tree(tmp_path) == tree(slow)


def final_folders(frames: Path) -> list[Path]:
    return [folder for folder in frames.glob("*/*/*") if not folder.name.startswith(".")]


def has_got_to(frames: Path, folders: int) -> bool:
    """Whether so many clips are finished and another has frames."""
    return len(final_folders(frames)) >= folders and any(frames.glob("*/*/.*/*.jpg"))


# What the containers say: frames at so many a second, the last at so many seconds. A frame stands at or after every
# second up to that one, so there are that many samples and one more.
REAL = {
    f"train/{PANEL}/a.mp4": ("dvrscan_traffic_camera.mp4", 24),  # 25 fps, last at 23.00
    f"test/{PANEL.replace(' ', '_')}/a.mp4": ("intel_car-detection.mp4", 31),  # 12.5 fps, last at 30.08
    f"train/{SAFE_WALK}/a.mp4": ("intel_one-by-one-person-detection.mp4", 140),  # 10 fps, last at 139.30
}


def full_decode(path: Path, seconds: list[int]) -> dict[int, list[np.ndarray]]:
    """Decode a clip from its start and return, for each second, the frame before its frame, its frame and the next."""
    shown, frames = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            shown.append(frame.time)
            frames.append(frame)
            if frame.time > max(seconds) + 1:
                break
    first = {second: int(np.searchsorted(shown, second + shown[0] - 1e-6)) for second in seconds}
    return {
        second: [frames[at + step].to_ndarray(format="rgb24").astype(int) for step in (-1, 0, 1)]
        for second, at in first.items()
    }


def test_real_clips_one_frame_a_second_and_each_its_own(tmp_path: Path) -> None:
    for path, (name, _) in REAL.items():
        (tmp_path / DATASET_FOLDER / path).parent.mkdir(parents=True)
        (tmp_path / DATASET_FOLDER / path).symlink_to(real_clip(f"cctv/{name}"))
    assert run(tmp_path, "--jpeg-quality", "95") == 0
    clips = {clip.path: clip for clip in read_clips(tmp_path / "clips.jsonl")}
    assert {path: clip.frames for path, clip in clips.items()} == {path: count for path, (_, count) in REAL.items()}
    assert [clips[path].source_class for path in list(REAL)[:2]] == ["2_opened_panel_cover"] * 2
    for path, clip in clips.items():
        for second, (before, same, after) in full_decode(tmp_path / DATASET_FOLDER / path, [2, 7, 11]).items():
            jpeg = np.asarray(Image.open(tmp_path / clip.frame_path(second))).astype(int)
            errors = [np.abs(jpeg - frame).mean() for frame in (before, same, after)]
            assert errors[1] < 2.5, (path, second, errors)
            assert errors[1] < min(errors[0], errors[2]), (path, second, errors)


def test_dask_cluster_leaves_the_same_bytes(data: Path) -> None:
    from distributed import LocalCluster

    run(data)
    first = tree(data)
    shutil.rmtree(data / "frames")
    (data / "clips.jsonl").unlink()
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        before = cluster.scheduler.transition_counter
        run(data, "--dask", cluster.scheduler_address)
        assert cluster.scheduler.transition_counter > before, "the cluster did it"
    assert tree(data) == first


def test_scheduler_that_does_not_answer_is_one_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DASK_TIMEOUT_SECONDS", 1)
    with pytest.raises(InputError, match="no scheduler answers there"):
        run(data, "--dask", "tcp://127.0.0.1:1")
    with pytest.raises(InputError, match="no scheduler answers there"):
        run(data, "--dask", "nonsense")


def test_dask_that_is_not_installed_is_one_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="pip install -r requirements-dask"):
        run(data, "--dask", "tcp://127.0.0.1:8786")
