import dataclasses
import hashlib
import json
import os
import random
from collections import Counter
from pathlib import Path

import datasets
import pytest
from PIL import Image

from data_prep.clips.jsonl import CLIPS_FILE, write_clips
from data_prep.clips.records import Clip
from data_prep.errors import InputError
from data_prep.labels import PROMPT, SOURCE_CLASSES
from data_prep.rows import dataset
from data_prep.rows.dataset import Frame, build_dataset, content_hash, cut_validation, read_frames, summary
from tests.tiny_data import make_clip, many_clips, write_data

# Clips of train by class in the published data set, and a tenth of each.
PUBLISHED = {0: 178, 1: 97, 2: 129, 3: 48, 4: 50, 5: 23, 6: 19, 7: 22}
TENTH = {0: 18, 1: 10, 2: 13, 3: 5, 4: 5, 5: 2, 6: 2, 7: 2}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", many_clips(train_per_class=2))


def frames_of(contents: dict[str, list[int]]) -> list[Frame]:
    """One frame a clip; `contents` maps a content to the classes of the clips that share it."""
    frames = []
    for content, digits in contents.items():
        for number, digit in enumerate(digits):
            clip = make_clip("train", digit, f"{content}_{number}", content)
            assert clip.sha256
            frames.append(
                Frame(
                    "w", f"{clip.folder}/0000.jpg", PROMPT, clip.label, clip.video_id, 0, clip.source_class, clip.sha256
                )
            )
    return frames


def classes_of(frames: list[Frame], clips: set[str]) -> Counter[int]:
    return Counter(int(frame.source_class[0]) for frame in frames if frame.clip in clips)


def test_rows_carry_bytes_labels_and_clip(data: Path) -> None:
    dataset = build_dataset(data)
    assert list(dataset) == ["train", "validation", "test"]
    assert dataset["test"].column_names == ["image", "prompt", "response", "clip", "sample", "source_class"]
    row = dataset["test"].cast_column("image", datasets.Image(decode=False))[5]
    assert row == {
        "image": {"bytes": (data / "frames/test/unsafe/2_te0/0001.jpg").read_bytes(), "path": "0001.jpg"},
        "prompt": PROMPT,
        "response": "UNSAFE",
        "clip": "2_te0",
        "sample": 1,
        "source_class": "2_opened_panel_cover",
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


def test_a_tenth_of_each_class_is_cut_from_the_published_numbers() -> None:
    frames = frames_of({f"{digit}-{n}": [digit] for digit, count in PUBLISHED.items() for n in range(count)})
    chosen = cut_validation(frames)
    assert classes_of(frames, chosen) == TENTH
    assert len(chosen) == 57  # of 566
    assert cut_validation(random.Random(1).sample(frames, len(frames))) == chosen
    assert cut_validation(frames, seed=0) == chosen != cut_validation(frames, seed=1)


def test_the_draw_does_not_follow_the_clips_names() -> None:
    frames = frames_of({f"c{n}": [0] for n in range(40)})
    renamed = [dataclasses.replace(frame, clip=f"z{40 - n}") for n, frame in enumerate(frames)]
    names = {new.clip: old.clip for old, new in zip(frames, renamed, strict=True)}
    assert {names[clip] for clip in cut_validation(renamed)} == cut_validation(frames)


@pytest.mark.parametrize("seed", range(20))
def test_clips_of_one_content_never_part_and_no_class_is_lost(seed: int) -> None:
    """As published: 32 contents stand in two classes each. Any draw must hold, so many are tried."""
    draw = random.Random(seed)
    left = {digit: count // 10 + 2 for digit, count in PUBLISHED.items()}
    contents: dict[str, list[int]] = {}
    for number in range(6):
        pair = draw.sample(sorted(left), 2)
        contents[f"shared{number}"] = pair
        for digit in pair:
            left[digit] -= left[digit] > 2
    contents |= {f"{digit}-{n}": [digit] for digit, count in left.items() for n in range(count)}
    frames = frames_of(contents)
    chosen = cut_validation(frames, seed=seed)
    kept = {frame.clip for frame in frames} - chosen
    assert not {f.clip_sha256 for f in frames if f.clip in chosen} & {f.clip_sha256 for f in frames if f.clip in kept}
    assert set(classes_of(frames, chosen)) == set(range(8)) == set(classes_of(frames, kept))
    assert len(chosen) <= 2 * 8


@pytest.mark.parametrize(
    ("contents", "held_out"),
    [
        ({"a": [0], "b": [0], "c": [4], "d": [4]}, {0: 1, 4: 1}),  # two clips a class: one goes
        ({"a": [0, 0, 0], "b": [4], "c": [4]}, {4: 1}),  # class 0 is one content in three clips: it stays
        ({"a": [0, 4], "b": [0], "c": [4]}, {0: 1, 4: 1}),  # the shared clip stays or goes whole
        ({"a": [0], "b": [4]}, {}),  # nothing to spare
        ({"a": [0, 4], "b": [0, 4]}, {0: 1, 4: 1}),
    ],
)
def test_small_data_sets(contents: dict[str, list[int]], held_out: dict[int, int]) -> None:
    frames = frames_of(contents)
    for seed in range(6):
        assert classes_of(frames, cut_validation(frames, seed=seed)) == held_out


def test_a_class_that_cannot_part_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [clip for clip in many_clips(train_per_class=2) if clip.video_id != "3_tr1"]
    dataset = build_dataset(write_data(tmp_path / "data", clips))
    assert "3_tr0" in dataset["train"]["clip"]
    assert capsys.readouterr().err.splitlines() == [
        "warning: 3_carrying_overload_with_forklift stays in train whole and is not in validation: "
        "it has no two clips of different content that can part"
    ]


def test_without_a_clip_to_spare_there_is_no_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = build_dataset(write_data(tmp_path / "data", many_clips(train_per_class=1)))
    assert list(dataset) == ["train", "test"]
    assert "there is no validation split" in capsys.readouterr().err


def _one_row(**changes: object) -> datasets.DatasetDict:
    row = {"prompt": "p", "response": "SAFE", "clip": "4_tr1", "sample": 3, "source_class": "4_safe_walkway"}
    image = {"bytes": b"not decoded here", "path": "0003.jpg"}
    table = {key: [value] for key, value in ({"image": image} | row | changes).items()}
    return datasets.DatasetDict({"train": datasets.Dataset.from_dict(table, features=dataset.frame_features())})


def test_content_hash_is_what_it_says() -> None:
    image = hashlib.sha256(b"not decoded here").hexdigest()
    row = json.dumps([image, "p", "SAFE", "4_tr1", 3, "4_safe_walkway"]) + "\n"
    expected = hashlib.sha256(f"train {hashlib.sha256(row.encode()).hexdigest()}\n".encode()).hexdigest()
    assert content_hash(_one_row()) == expected == "bcea473c619ec77484a2db0de5d3374862bb571732fb8b739c188c381bea11e9"


@pytest.mark.parametrize(
    "change",
    [
        {"image": {"bytes": b"other", "path": "0003.jpg"}},
        {"prompt": "q"},
        {"response": "UNSAFE"},
        {"clip": "4_tr2"},
        {"sample": 4},
        {"source_class": "5_authorized_intervention"},
    ],
)
def test_content_hash_covers_every_column(change: dict[str, object]) -> None:
    assert content_hash(_one_row(**change)) != content_hash(_one_row())


def test_content_hash_covers_split_and_order_but_not_the_file_name() -> None:
    one = _one_row()
    moved = datasets.DatasetDict({"test": one["train"]})
    assert content_hash(moved) != content_hash(one)
    two = datasets.concatenate_datasets([one["train"], _one_row(sample=4)["train"]])
    swapped = datasets.DatasetDict({"train": two.select([1, 0])})
    assert content_hash(swapped) != content_hash(datasets.DatasetDict({"train": two}))
    assert content_hash(_one_row(image={"bytes": b"not decoded here", "path": "x.jpg"})) == content_hash(one)


def test_summary_counts_frames_clips_and_labels(data: Path) -> None:
    assert summary(build_dataset(data)) == (
        "train 16 frames of 8 clips (SAFE 8, UNSAFE 8); validation 16 frames of 8 clips (SAFE 8, UNSAFE 8); "
        "test 16 frames of 8 clips (SAFE 8, UNSAFE 8)"
    )


def test_tiny_data_has_all_classes() -> None:
    clips: list[Clip] = many_clips()
    assert {clip.source_class for clip in clips} == {source_class.folder for source_class in SOURCE_CLASSES}
