import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.clips.jsonl import read_clips, write_clips
from data_prep.clips.records import Clip, Settings
from data_prep.errors import InputError
from tests.tiny_data import unversioned, without_origin

CLIP = Clip(
    video_id="0_tr1",
    split="train",
    label="UNSAFE",
    source_class="0_safe_walkway_violation",
    path="train/0_safe_walkway_violation/0_tr1.mp4",
    sha256="ab" * 32,
    duration_seconds=2.0,
    rate=25.0,
    width=64,
    height=48,
    settings=Settings(fps=1.0, jpeg_quality=90),
    extractor=2,
    samples=(0, 1),
    status="ok",
    faults=(),
    reason=None,
)


A = "0_safe_walkway_violation"


def test_clips_are_written_in_natural_order_and_read_back(tmp_path: Path) -> None:
    clips = [
        replace(CLIP, video_id=name, path=f"train/{A}/{name}.mp4") for name in ("0_tr10", "0_tr9", "dé 'p\n\"lacé")
    ]
    write_clips(tmp_path / "clips.jsonl", clips)
    first = (tmp_path / "clips.jsonl").read_bytes()
    assert [clip.video_id for clip in read_clips(tmp_path / "clips.jsonl")] == ["0_tr9", "0_tr10", "dé 'p\n\"lacé"]
    write_clips(tmp_path / "clips.jsonl", reversed(clips))
    assert (tmp_path / "clips.jsonl").read_bytes() == first
    assert set(read_clips(tmp_path / "clips.jsonl")) == set(clips)


def test_a_clips_paths() -> None:
    assert CLIP.folder == "frames/train/unsafe/0_tr1"
    assert CLIP.frame_paths == ["frames/train/unsafe/0_tr1/0000.jpg", "frames/train/unsafe/0_tr1/0001.jpg"]
    later = replace(CLIP, samples=(3, 9999, 10000, 15724800))
    assert [Path(path).name for path in later.frame_paths] == ["0003.jpg", "9999.jpg", "10000.jpg", "15724800.jpg"]
    assert (later.frames, later.frame_path(7)) == (4, "frames/train/unsafe/0_tr1/0007.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": ".."}, "video_id '..' cannot be a folder's name"),
        ({"video_id": "a/b"}, "cannot be a folder's name"),
        ({"video_id": ""}, "cannot be a folder's name"),
        ({"split": "val"}, "split 'val'"),
        ({"label": "SAFE"}, "does not go with label 'SAFE'"),
        ({"source_class": "0_walkway"}, "source class '0_walkway'"),
        ({"path": "/etc/passwd"}, "not relative"),
        ({"path": "train/../../x.mp4"}, "not relative"),
        ({"sha256": "AB" * 32}, "64 hexadecimal digits"),
        ({"sha256": None}, "status ok does not go without a sha256"),
        ({"sha256": None, "status": "pending", "samples": ()}, "status pending does not go without a sha256"),
        ({"status": "good"}, "status 'good'"),
        ({"samples": ()}, "status ok does not go with 0 frames"),
        ({"status": "failed"}, "status failed does not go with 2 frames"),
        ({"samples": (0, 0)}, "each once and in order"),
        ({"samples": (2, 1)}, "each once and in order"),
        ({"samples": (-1, 0)}, "from 0 on"),
        ({"samples": (0, 1.0)}, "not whole numbers"),
        ({"samples": (False, True)}, "not whole numbers"),
        ({"extractor": 3}, "extractor 3 is outside 1 to 2"),
        ({"extractor": 0}, "extractor 0 is outside"),
        ({"extractor": True}, "extractor True is outside"),
        ({"faults": None}, "extractor 2 does not go with faults None"),
        ({"extractor": 1}, r"extractor 1 does not go with faults \(\)"),
        ({"faults": (("torn", 1),)}, "status ok does not go with 1 kinds of faults"),
        ({"status": "partial"}, "status partial does not go with 0 kinds of faults"),
        ({"status": "partial", "faults": (("torn", 0),)}, "each with how often it was found"),
        ({"source_class": "", "own_class": True}, "source class ''"),
        ({"source_class": "4_safe_walkway", "own_class": True}, "source class '4_safe_walkway' does not go with label"),
        ({"own_class": 1}, "own_class 1 is neither"),
        ({"camera": " "}, "camera ' ' is no text"),
        ({"day": 20260501}, "day 20260501 is no text"),
        ({"description": ""}, "description '' is no text"),
        ({"split_from": "chance"}, "split_from 'chance' is not one of folder, day, content, copy"),
    ],
)
def test_a_clip_checks_itself(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Clip(**{**asdict(CLIP), "settings": CLIP.settings, **change})


@pytest.mark.parametrize(
    ("fps", "quality"), [(0, 90), (-1, 90), (float("nan"), 90), (float("inf"), 90), (1, 0), (1, 96)]
)
def test_settings_check_themselves(fps: float, quality: int) -> None:
    with pytest.raises(InputError):
        Settings(fps, quality)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-20], r"clips\.jsonl:2: not a whole JSON object"),
        (lambda text: text.replace('"reason"', '"why"'), r"clips\.jsonl:1: a clip's record has exactly the keys"),
        (lambda text: text.replace('"fps": 1.0', '"fps": "1"'), r"clips\.jsonl:1: a value has the wrong type"),
        (lambda text: text.replace('"train"', '"val"'), r"clips\.jsonl:1: split 'val'"),
        (lambda text: text.replace("0_tr2", "0_tr1"), r"clips\.jsonl:2: second record"),
        (lambda text: text + "[]\n", r"clips\.jsonl:3: a clip's record"),
        (lambda text: text.replace('"samples": [0, 1]', '"samples": 2'), r"clips\.jsonl:1: a value has the wrong type"),
        (lambda text: text.replace('"faults": {}', '"faults": []'), r"clips\.jsonl:1: a value has the wrong type"),
        (lambda text: text.replace('"samples": [0, 1]', '"frames": 2'), r"clips\.jsonl:1: a clip's record has exactly"),
        (lambda text: text.replace('"extractor": 2, ', ""), r"clips\.jsonl:1: a clip's record has exactly the keys"),
        (
            lambda text: text.replace('"extractor": 2', '"extractor": 3').replace('"reason"', '"why"'),
            r"clips\.jsonl:1: extractor 3 is a later version's, this one knows up to 2; update the project, or start",
        ),
    ],
)
def test_damaged_records_name_file_and_line(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "clips.jsonl"
    write_clips(path, [CLIP, replace(CLIP, video_id="0_tr2", path=f"train/{A}/0_tr2.mp4")])
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        read_clips(path)


def test_records_of_before_there_were_cameras_are_read(tmp_path: Path) -> None:
    """As the version before wrote them; one of both kinds of keys is no record."""
    path = tmp_path / "clips.jsonl"
    path.write_text(without_origin(CLIP) + "\n")
    assert read_clips(path) == [CLIP]
    assert (CLIP.camera, CLIP.day, CLIP.own_class, CLIP.split_from) == (None, None, False, "folder")
    path.write_text(json.dumps({**json.loads(without_origin(CLIP)), "camera": "gate"}) + "\n")
    with pytest.raises(InputError, match=r"clips\.jsonl:1: a clip's record has exactly the keys"):
        read_clips(path)


def test_own_classes_cameras_and_splits_stand_in_the_record(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    own = {"own_class": True, "source_class": "blocked exit", "description": "goods before the door"}
    clip = replace(CLIP, **own, camera="gate", day="2026-05-01", split_from="day")  # type: ignore[arg-type]
    write_clips(path, [clip])
    assert read_clips(path) == [clip]


def test_missing_records(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; run data_prep/extract_frames\.py first"):
        read_clips(tmp_path / "clips.jsonl")


def test_samples_and_faults_stand_in_the_record_as_a_list_and_by_their_words(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    faults = (("incomplete packets", 2), ("unreadable rest", 1))
    clip = replace(CLIP, samples=(0, 4, 15724800), status="partial", faults=faults, reason="as told")
    write_clips(path, [clip])
    record = json.loads(path.read_text())
    assert (record["extractor"], record["samples"]) == (2, [0, 4, 15724800])
    assert record["faults"] == {"incomplete packets": 2, "unreadable rest": 1}
    assert "frames" not in record
    assert read_clips(path) == [clip]


def test_a_clip_that_could_not_be_read_has_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    clip = replace(CLIP, sha256=None, samples=(), status="failed", reason="cannot be read (Input/output error)")
    write_clips(path, [clip])
    assert json.loads(path.read_text())["sha256"] is None
    assert read_clips(path) == [clip]


def test_records_without_a_version_are_read_and_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    records = [
        unversioned(CLIP, frames=3),
        unversioned(CLIP, video_id="0_tr2", path=f"train/{A}/0_tr2.mp4", status="partial", reason="torn: 4"),
        unversioned(CLIP, video_id="0_tr3", path=f"train/{A}/0_tr3.mp4", status="failed", reason="no", frames=0),
        unversioned(CLIP, video_id="0_tr4", path=f"train/{A}/0_tr4.mp4", status="pending", frames=0),
    ]
    path.write_text("".join(f"{record}\n" for record in records))
    clips = read_clips(path)
    assert [clip.samples for clip in clips] == [(0, 1, 2), (0, 1), (), ()]
    assert {(clip.extractor, clip.faults) for clip in clips} == {(1, None)}
    assert [clip.is_of_earlier_extractor for clip in clips] == [True, True, True, False]
    write_clips(path, clips)
    assert read_clips(path) == clips
