from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.clips.audit import audit_clips, of_today
from data_prep.clips.audit_in_words import audit_in_words
from data_prep.clips.background import probe_background
from data_prep.clips.records import Clip
from tests.tiny_data import make_clip


def clips_of(*counts: tuple[str | None, int, int]) -> list[Clip]:
    """Return so many UNSAFE and SAFE clips of cameras, of one frame each."""
    return [
        replace(make_clip("train", digit, f"{camera}-{digit}-{number}"), camera=camera, samples=(0,))
        for camera, unsafe, safe in counts
        for digit, count in ((0, unsafe), (4, safe))
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("counts", "telling"),
    [
        ([("gate", 20, 1), ("hall", 3, 7)], [("gate", "UNSAFE", 20, 21)]),
        ([("gate", 19, 2), ("hall", 3, 7)], []),  # 90 %
        ([("gate", 5, 0), ("hall", 0, 5)], [("gate", "UNSAFE", 5, 5), ("hall", "SAFE", 5, 5)]),
        ([("gate", 4, 0), ("hall", 0, 4)], []),  # too few to tell
        ([("gate", 30, 1), ("hall", 9, 0)], []),  # so is everything
        ([(None, 9, 0), ("hall", 4, 4)], []),
    ],
)
def test_cameras_that_tell_the_label(
    counts: list[tuple[str | None, int, int]], telling: list[tuple[str, str, int, int]]
) -> None:
    found = audit_clips(clips_of(*counts), [])["cameras_that_tell_the_label"]
    assert [(each["camera"], each["label"], each["clips"], each["of"]) for each in found] == telling


def test_cameras_are_counted() -> None:
    audit = audit_clips(clips_of(("cam 10", 1, 2), ("cam 9", 3, 0), (None, 1, 0)), [])
    assert audit["cameras"] == {
        "cam 9": {"clips": 3, "labels": {"SAFE": 0, "UNSAFE": 3}, "splits": {"train": 3, "test": 0}},
        "cam 10": {"clips": 3, "labels": {"SAFE": 2, "UNSAFE": 1}, "splits": {"train": 3, "test": 0}},
    }
    assert list(audit["cameras"]) == ["cam 9", "cam 10"]
    assert audit["clips_without_camera"] == 1
    assert "cameras: 2, 1 clips of an unknown one\n  cam 9: 3 clips" in audit_in_words(audit)


def test_of_the_published_data_nothing_is_said() -> None:
    assert "camera" not in audit_in_words(audit_clips(clips_of((None, 9, 0), (None, 1, 4)), []))


def test_audit_of_an_earlier_version_knows_no_cameras() -> None:
    clips = clips_of((None, 2, 2))
    today = audit_clips(clips, [])
    earlier = {"schema_version": 3, **{name: today[name] for name in list(today)[:10]}}
    assert not {"cameras", "classes"} & earlier.keys()
    assert of_today(earlier)["cameras"] == of_today(earlier)["classes"] == {}
    assert audit_in_words(of_today(earlier)) == audit_in_words(today)


def write_frames(data: Path, clips: list[Clip], *, edge_tells: bool) -> None:
    """Write frames whose middle tells the label, and their edges the label, or nothing."""
    rng = np.random.default_rng(0)
    for clip in clips:
        level = {"UNSAFE": 170, "SAFE": 80}
        edge = level[clip.label] if edge_tells else 125
        pixels = np.full((90, 160, 3), edge) + rng.integers(-40, 40, 3)
        pixels[25:65, 30:130] = level[clip.label]
        (data / clip.folder).mkdir(parents=True)
        Image.fromarray(pixels.astype(np.uint8)).save(data / clip.frame_path(0))


def test_probe_sees_edges_and_nothing_else(tmp_path: Path) -> None:
    clips = clips_of(("gate", 30, 1), ("hall", 2, 30))
    for folder, tells in (("tell", True), ("silent", False)):
        write_frames(tmp_path / folder, clips, edge_tells=tells)
    told = probe_background(clips, lambda clip: tmp_path / "tell")
    silent = probe_background(clips, lambda clip: tmp_path / "silent")
    assert told == {"clips": 63, "balanced_accuracy": pytest.approx(1.0, abs=0.08)}
    assert silent and 0.2 < silent["balanced_accuracy"] < 0.7, "the middle, which tells all, isn't seen"


def test_audit_says_what_the_probe_found_where_a_camera_tells_the_label(tmp_path: Path) -> None:
    clips = clips_of(("gate", 30, 0), ("hall", 0, 30))
    write_frames(tmp_path, clips, edge_tells=True)
    words = audit_in_words(audit_clips(clips, [], lambda clip: tmp_path))
    assert "cameras that nearly tell the label: gate (30 of 30 UNSAFE), hall (30 of 30 SAFE)" in words
    assert "edges of frames alone tells the label of 60 clips with a balanced accuracy of 1.000; 0.5 is chance" in words


def test_probe_of_one_label_says_nothing(tmp_path: Path) -> None:
    clips = clips_of(("gate", 9, 0))
    write_frames(tmp_path, clips, edge_tells=True)
    assert probe_background(clips, lambda clip: tmp_path) is None
