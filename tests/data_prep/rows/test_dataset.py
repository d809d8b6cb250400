import dataclasses
import json
import os
from pathlib import Path

import datasets
import pytest
from PIL import Image

from data_prep.clips.jsonl import CLIPS_FILE, write_clips
from data_prep.clips.records import Clip
from data_prep.errors import InputError
from data_prep.labels import PROMPT, SOURCE_CLASSES
from data_prep.rows import dataset
from data_prep.rows.content import content_hash
from data_prep.rows.dataset import build_dataset
from data_prep.rows.frames import read_frames
from tests.tiny_data import many_clips, write_data

pytestmark = pytest.mark.usefixtures("own_cache")


def test_rows_carry_bytes_labels_and_clip(data: Path) -> None:
    dataset = build_dataset(data)
    assert list(dataset) == ["train", "validation", "test"]
    assert dataset["test"].column_names == ["image", "prompt", "response", "clip", "sample", "source_class", "camera"]
    row = dataset["test"].cast_column("image", datasets.Image(decode=False))[5]
    assert row == {
        "image": {"bytes": (data / "frames/test/unsafe/2_te0/0001.jpg").read_bytes(), "path": "0001.jpg"},
        "prompt": PROMPT,
        "response": "UNSAFE",
        "clip": "2_te0",
        "sample": 1,
        "source_class": "2_opened_panel_cover",
        "camera": None,
    }
    assert dataset["test"][5]["image"].size == (16, 12)
    assert dataset["validation"].features == dataset["test"].features


def test_samples_keep_their_numbers_across_a_pause_of_any_length(tmp_path: Path) -> None:
    """A recorder's clock that begins in 1970 and is set right while it records, at two frames a second."""
    samples = (0, 3, 3_550_000_000)
    clips = [dataclasses.replace(clip, samples=samples) if clip.video_id == "4_te0" else clip for clip in many_clips(2)]
    test = build_dataset(write_data(tmp_path, clips))["test"]
    assert [sample for clip, sample in zip(test["clip"], test["sample"], strict=True) if clip == "4_te0"] == [*samples]


@pytest.mark.parametrize("samples", [(0,), (0, 2)])
def test_a_frame_that_its_clips_record_does_not_list_is_refused(data: Path, samples: tuple[int, ...]) -> None:
    """As where clips are extracted anew and rows aren't built again."""
    clips = [dataclasses.replace(clip, samples=samples) if clip.video_id == "4_te0" else clip for clip in many_clips(2)]
    write_clips(data / CLIPS_FILE, clips)
    with pytest.raises(InputError, match=r"test\.jsonl:\d+: image '.*4_te0/0001\.jpg' is no frame of a clip in clips"):
        read_frames(data, "test")


def test_rows_wait_for_an_extraction_that_was_interrupted(data: Path) -> None:
    clips = [dataclasses.replace(clip, samples=(), status="pending") for clip in many_clips(2)]
    write_clips(data / CLIPS_FILE, clips)
    with pytest.raises(InputError, match=r"run data_prep/extract_frames\.py and build_jsonl\.py again"):
        read_frames(data, "train")


def test_train_and_validation_hold_every_row_once(data: Path) -> None:
    dataset = build_dataset(data)
    keys = [
        (clip, sample)
        for split in ("train", "validation")
        for clip, sample in zip(dataset[split]["clip"], dataset[split]["sample"], strict=True)
    ]
    assert sorted(keys) == sorted((f"{d}_tr{n}", k) for d in range(8) for n in (0, 1) for k in (0, 1))
    assert not set(dataset["train"]["clip"]) & set(dataset["validation"]["clip"])


def test_an_edited_row_is_seen(data: Path) -> None:
    before = build_dataset(data)
    jsonl = data / "test.jsonl"
    jsonl.write_text(jsonl.read_text().replace('"UNSAFE"', '"SAFE"', 1))
    after = build_dataset(data)
    assert (before["test"][0]["response"], after["test"][0]["response"]) == ("UNSAFE", "SAFE")
    assert content_hash(before) != content_hash(after)


def test_an_edited_image_is_seen_though_its_size_and_date_are_the_same(data: Path) -> None:
    before = build_dataset(data)
    frame, other = (data / f"frames/test/unsafe/{clip}_te0/0000.jpg" for clip in (0, 1))
    old, new = frame.read_bytes(), other.read_bytes()
    assert len(old) == len(new) and old != new
    stat = frame.stat()
    frame.write_bytes(new)
    os.utime(frame, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = build_dataset(data)
    assert before["test"][0]["image"].tobytes() != after["test"][0]["image"].tobytes()
    assert content_hash(before) != content_hash(after)


def test_a_damaged_copy_in_the_library_cache_is_not_served(data: Path) -> None:
    dataset = build_dataset(data)
    arrow = Path(dataset["test"].cache_files[0]["filename"])
    content = arrow.read_bytes()
    at = content.index((data / "frames/test/unsafe/0_te0/0000.jpg").read_bytes()) + 200
    arrow.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(InputError, match=r"generator-test\.arrow: not what was built"):
        build_dataset(data)


def _set_image(data: Path, image: str) -> None:
    """Make `image` that of the third line of test.jsonl."""
    lines = (data / "test.jsonl").read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), "image": image})
    (data / "test.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        ("/etc/hostname", "is an absolute path"),
        ("~/frame.jpg", "is an absolute path"),
        ("C:\\frame.jpg", "is an absolute path"),
        ("../frame.jpg", r"holds '\.\.'"),
        ("frames/test/../../../frame.jpg", r"holds '\.\.'"),
        ("http://127.0.0.1/frame.jpg", "is a URL"),
        ("file:///etc/hostname", "is a URL"),
        ("data:image/png;base64,AAAA", "is a URL"),
        ("frames/test/unsafe/1_te0/0009.jpg", "leads out of"),
        ("frames/test/unsafe/1_te0/0008.jpg", "is missing"),
        ("frames/test/unsafe/1_te0/0007.jpg", "is not a regular file"),
    ],
)
def test_an_unfit_path_is_refused_before_any_image_is_opened(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str, complaint: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("an image was opened")

    Image.new("RGB", (8, 8)).save(tmp_path / "outside.jpg")
    (data / "frames/test/unsafe/1_te0/0009.jpg").symlink_to(tmp_path / "outside.jpg")
    (data / "frames/test/unsafe/1_te0/0007.jpg").mkdir()
    _set_image(data, image)
    for opener in ("check_image", "sha256_of_file"):
        monkeypatch.setattr(dataset, opener, never)
    with pytest.raises(InputError, match=rf"test\.jsonl:3: image .*{complaint}"):
        build_dataset(data)


def test_a_folder_that_links_out_is_refused(data: Path, tmp_path: Path) -> None:
    (data / "frames/test/unsafe/1_te0").rename(tmp_path / "elsewhere")
    (data / "frames/test/unsafe/1_te0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"test\.jsonl:3: image .* leads out of"):
        build_dataset(data)


def test_a_file_that_is_no_image_or_too_large_is_refused_with_its_line(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = data / "frames/test/unsafe/1_te0/0000.jpg"
    whole = frame.read_bytes()
    for content in (b"GIF89a", whole[: len(whole) // 2], b""):
        frame.write_bytes(content)
        with pytest.raises(InputError, match=r"test\.jsonl:3: image 'frames/test/unsafe/1_te0/0000.jpg': "):
            build_dataset(data)
    frame.write_bytes(whole)
    monkeypatch.setattr("data_prep.media.images.MAX_IMAGE_PIXELS", 16 * 12 - 1)
    with pytest.raises(InputError, match=r"jsonl:1: image .*: 16x12 is 192 pixels; at most 191"):
        build_dataset(data)


def test_rows_without_their_clips_are_refused(data: Path) -> None:
    clips = (data / "clips.jsonl").read_text()
    (data / "clips.jsonl").unlink()
    with pytest.raises(InputError, match=r"clips\.jsonl: no such file; run data_prep/extract_frames\.py first"):
        read_frames(data, "train")
    (data / "clips.jsonl").write_text("".join(line for line in clips.splitlines(True) if "0_tr1" not in line))
    with pytest.raises(InputError, match=r"train\.jsonl:3: image .*0_tr1.* is no frame of a clip in clips\.jsonl"):
        read_frames(data, "train")


def test_a_test_frame_in_train_is_refused(data: Path) -> None:
    with (data / "train.jsonl").open("a") as file:
        file.write("\n" + (data / "test.jsonl").read_text())
    with pytest.raises(InputError, match=r"train\.jsonl:34: image .* is of the test split"):
        read_frames(data, "train")


def _append(data: Path, **changed: str) -> None:
    """Add the second row of train.jsonl once more at its end, in line 33."""
    text = (data / "train.jsonl").read_text()
    row = {**json.loads(text.splitlines()[1]), **changed}
    (data / "train.jsonl").write_text(text + json.dumps(row) + "\n")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ""),
        ({"image": "frames/train//unsafe/./0_tr0/0001.jpg"}, ""),
        ({"response": "SAFE"}, ", there as UNSAFE and here as SAFE"),
        ({"prompt": "Is it safe?"}, ""),
    ],
)
def test_a_frame_has_one_row(data: Path, changed: dict[str, str], told: str) -> None:
    _append(data, **changed)
    message = rf"train\.jsonl:33: image '.*0_tr0/0001\.jpg' stands in line 2 already{told}; leave one row of a frame$"
    with pytest.raises(InputError, match=message):
        read_frames(data, "train")


def test_one_picture_under_both_answers_is_told_and_kept(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A camera that shows black does so in clips of either label."""
    expected = len(build_dataset(data)["test"])
    assert "both answers" not in capsys.readouterr().err
    unsafe, safe = (data / f"frames/test/{folder}/0000.jpg" for folder in ("unsafe/1_te0", "safe/5_te0"))
    safe.write_bytes(unsafe.read_bytes())
    assert len(build_dataset(data)["test"]) == expected
    assert capsys.readouterr().err.splitlines() == [
        f"warning: 1 pictures stand under both answers, byte for byte; the first {data}/test.jsonl:3 and "
        f"{data}/test.jsonl:11"
    ]


def test_tiny_data_has_all_classes() -> None:
    clips: list[Clip] = many_clips()
    assert {clip.source_class for clip in clips} == {source_class.folder for source_class in SOURCE_CLASSES}
