import itertools
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep import audit, extract_frames
from data_prep.clips.archive import DATASET_FOLDER
from data_prep.clips.audit import audit_clips, identical_groups, leaks_in_train, read_audit
from data_prep.clips.audit import twins_of_test_clips as twins
from data_prep.clips.audit_in_words import audit_in_words
from data_prep.clips.jsonl import CLIPS_FILE, read_clips, write_clips
from data_prep.clips.records import Clip
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from data_prep.labels import SOURCE_CLASSES
from tests.made_clips import times, write_mp4
from tests.tiny_data import make_clip, many_clips, unversioned, write_data


def clip(split: str, class_digit: int, content: str) -> Clip:
    return replace(make_clip(split, class_digit, f"{class_digit}_{content}"), sha256=content * 64)


def test_groups_of_identical_clips() -> None:
    clips = [
        clip("train", 0, "a"), clip("train", 1, "a"),  # one split, one label
        clip("train", 2, "b"), clip("train", 5, "b"),  # both labels
        clip("train", 3, "c"), clip("test", 3, "c"),  # both splits
        clip("train", 4, "d"), clip("test", 0, "d"),  # both of both
        clip("train", 7, "e"), clip("test", 7, "f"),  # alone
    ]  # fmt: skip
    groups = {group["sha256"][0]: group for group in identical_groups(clips)}
    flags = {content: (group["across_splits"], group["both_labels"]) for content, group in groups.items()}
    assert flags == {"a": (False, False), "b": (False, True), "c": (True, False), "d": (True, True)}
    assert groups["c"]["paths"] == [
        "test/3_carrying_overload_with_forklift/3_c.mp4",
        "train/3_carrying_overload_with_forklift/3_c.mp4",
    ]


def test_test_clips_with_twins_are_marked() -> None:
    clips = [
        clip("train", 3, "a"), clip("test", 3, "a"),  # the same, learnt
        clip("train", 4, "b"), clip("test", 0, "b"),  # learnt under the other label
        clip("test", 1, "c"), clip("test", 5, "c"),  # both in test, one of them wrong
        clip("train", 2, "d"), clip("train", 6, "d"), clip("test", 7, "e"), clip("test", 7, "f"),
    ]  # fmt: skip
    assert {each["clip"]: (each["in_train"], each["other_label"]) for each in twins(clips)} == {
        "3_a": (True, False),
        "0_b": (True, True),
        "1_c": (False, True),
        "5_c": (False, True),
    }
    assert twins(clips)[0]["path"] == "test/0_safe_walkway_violation/0_b.mp4"


def test_audit_says_how_many_frames_a_second_were_taken_where_that_is_one() -> None:
    clips = [clip("train", 0, "a"), clip("test", 4, "b")]
    assert audit_clips(clips, [])["fps"] == 1.0
    other = replace(clip("test", 5, "c"), settings=replace(clips[0].settings, fps=2.0))
    assert audit_clips([*clips, other], [])["fps"] is None


def test_copies_among_as_many_clips_as_the_data_set_has_are_found_exactly(tmp_path: Path) -> None:
    """691 files of 658 contents: 32 groups, 9 of them across the splits and 4 under both labels."""
    film = write_mp4(tmp_path / "film.mp4", times(1, 5)).read_bytes()
    # An mp4 may end with a box of any content that is to be passed over.
    contents = (film + struct.pack(">I4sI", 12, b"free", number) for number in itertools.count())
    paths: list[str] = []

    def add(*copies: tuple[str, int]) -> None:
        content = next(contents)
        for split, digit in copies:
            paths.append(f"{split}/{SOURCE_CLASSES[digit].folder}/{digit}_{split[:2]}{len(paths)}.mp4")
            path = tmp_path / DATASET_FOLDER / paths[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    for number in range(32):
        split = "test" if number < 9 else "train"
        other_class = 4 if number in (0, 9, 10, 11) else 1
        add(("train", 0), (split, other_class), *([("train", 2)] if number == 31 else []))
    while len(paths) < 691:
        add(("train" if len(paths) < 550 else "test", len(paths) % 8))
    assert extract_frames.main(["--data", str(tmp_path), "--workers", "1"]) == 0
    clips = read_clips(tmp_path / CLIPS_FILE)
    assert len(clips) == 691
    groups = identical_groups(clips)
    assert len({each.sha256 for each in clips}) == 658
    assert len(groups) == 32
    assert sum(group["across_splits"] for group in groups) == 9
    assert sum(group["both_labels"] for group in groups) == 4
    assert len(twins(clips)) == 9
    # The nine's training clips, and two each of the three others under both labels.
    leaks = leaks_in_train(clips)
    assert (len(leaks), sum(leak["in_test"] for leak in leaks), sum(leak["both_labels"] for leak in leaks)) == (
        15,
        9,
        7,
    )


def test_shift_between_the_splits_is_said_where_there_is_one() -> None:
    def audit_of(*test_classes: int) -> str:
        train = [clip("train", digit, content) for digit, content in ((0, "a"), (1, "b"), (2, "c"), (4, "d"))]
        test = [clip("test", digit, "ef0123"[number]) for number, digit in enumerate(test_classes)]
        return audit_in_words(audit_clips([*train, *test], []))

    assert "UNSAFE is 75% of train and 50% of test: learnt as it is, train makes UNSAFE the likelier" in audit_of(0, 4)
    assert "UNSAFE is 75% of train and 100% of test: learnt as it is, train makes SAFE the likelier" in audit_of(0, 1)
    assert "likelier" not in audit_of(0, 1, 2, 4)


def damaged(split: str, digit: int, content: str, **faults: int) -> Clip:
    found = tuple((fault.replace("_", " "), count) for fault, count in sorted(faults.items()))
    return replace(clip(split, digit, content), status="partial", faults=found, reason="as told")


def test_faults_are_counted_by_kind_per_split_and_in_all() -> None:
    clips = [
        damaged("train", 0, "a", incomplete_packets=2, pictures_missing=1),
        damaged("train", 1, "b", pictures_missing=4),
        damaged("test", 4, "c", incomplete_packets=1),
        replace(damaged("train", 2, "d", unreadable_rest=1), status="failed", samples=()),
        replace(clip("train", 3, "e"), status="failed", samples=(), reason="not a readable mp4"),
        clip("train", 5, "f"), clip("test", 0, "0"),
    ]  # fmt: skip
    found = audit_clips(clips, [])
    assert found["faults"] == {
        "incomplete packets": {"clips": 2, "occurrences": 3},
        "pictures missing": {"clips": 2, "occurrences": 5},
        "unreadable rest": {"clips": 1, "occurrences": 1},
    }
    assert found["splits"]["train"]["faults"] == {
        "incomplete packets": {"clips": 1, "occurrences": 2},
        "pictures missing": {"clips": 2, "occurrences": 5},
        "unreadable rest": {"clips": 1, "occurrences": 1},
    }
    assert found["splits"]["test"]["faults"] == {"incomplete packets": {"clips": 1, "occurrences": 1}}
    lines = audit_in_words(found).splitlines()
    at = lines.index(
        "damaged clips: 3 partial, 2 failed: incomplete packets in 2 clips (3), pictures missing in 2 clips (5), "
        "unreadable rest in 1 clips (1)"
    )
    assert lines[at + 1 : at + 3] == [
        "  train: incomplete packets in 1 clips (2), pictures missing in 2 clips (5), unreadable rest in 1 clips (1)",
        "  test: incomplete packets in 1 clips (1)",
    ]


def test_sound_clips_have_no_line_about_damage_and_clips_that_failed_have_one() -> None:
    sound = [clip("train", 0, "a"), clip("test", 4, "b")]
    assert "damaged" not in audit_in_words(audit_clips(sound, []))
    failed = replace(clip("train", 3, "e"), status="failed", samples=(), reason="not a readable mp4")
    assert "damaged clips: 0 partial, 1 failed\n" in audit_in_words(audit_clips([*sound, failed], []))


def test_clips_with_gaps_are_counted_by_the_samples_that_there_are() -> None:
    clips = [
        replace(clip("train", 0, "a"), samples=(0, 15724800)),
        replace(clip("train", 1, "b"), samples=(7,)),
        replace(clip("train", 2, "c"), samples=(0, 1, 5, 9)),
    ]
    found = audit_clips([*clips, clip("test", 4, "d")], [])
    assert found["splits"]["train"]["frames"] == 7
    assert found["splits"]["train"]["frames_a_clip"] == {"min": 1, "median": 2, "max": 4}
    assert found["single_frame_clips"] == [clips[1].path]


def test_clips_of_an_earlier_extractor_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = many_clips()
    write_data(tmp_path, clips)
    records = [unversioned(each, status="partial", reason="torn: 4") for each in clips[:3]]
    records += [unversioned(each) for each in clips[3:]]
    (tmp_path / CLIPS_FILE).write_text("\n".join(records))
    assert audit.main(["--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "damaged clips: 3 partial, 0 failed" in lines
    assert (
        "32 clips were extracted by an earlier version, whose samples could be wrong and whose faults aren't counted; "
        "run data_prep/extract_frames.py again"
    ) in lines
    assert audit.main(["--data", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["extracted_by_earlier_version"], found["faults"]) == (32, {})


def test_training_clips_that_leak_are_named_with_the_reason() -> None:
    clips = [
        clip("train", 3, "a"), clip("test", 3, "a"),  # the test clip learnt
        clip("train", 4, "b"), clip("test", 0, "b"),  # and contradicted
        clip("train", 1, "c"), clip("train", 5, "c"),  # one of them wrong
        clip("test", 1, "d"), clip("test", 5, "d"),  # none of train's business
        clip("train", 2, "e"), clip("train", 1, "e"), clip("train", 7, "f"),
        replace(clip("train", 6, "0"), status="failed", samples=()), clip("test", 6, "0"),
    ]  # fmt: skip
    found = {leak["path"].rpartition("/")[2]: (leak["in_test"], leak["both_labels"]) for leak in leaks_in_train(clips)}
    assert found == {
        "3_a.mp4": (True, False),
        "4_b.mp4": (True, True),
        "1_c.mp4": (False, True),
        "5_c.mp4": (False, True),
    }


def test_the_script_says_what_the_clips_hold_and_writes_nothing(tmp_path: Path) -> None:
    clips = [*many_clips(), make_clip("train", 7, "copy", content="train 0_tr0")]
    write_data(tmp_path, clips)
    before = sorted(tmp_path.rglob("*"))

    def say(*flags: str) -> str:
        command = [sys.executable, str(PROJECT_ROOT / "data_prep" / "audit.py"), "--data", str(tmp_path), *flags]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    found = json.loads(say("--json"))
    assert found == audit_clips(clips, found["near_identical_clips"])
    assert say() == audit_in_words(found) + "\n"
    assert "identical clips: 1 groups, 0 of them in both splits, 1 under both labels" in say()
    assert sorted(tmp_path.rglob("*")) == before


def test_clips_that_look_alike_are_reported_and_no_more() -> None:
    clips = [clip("train", 0, "a"), clip("test", 4, "b"), clip("test", 5, "c")]
    paths = sorted(each.path for each in clips)
    group = {"paths": paths, "clips": 3, "different_bits": 2, "across_splits": True, "both_labels": True}
    found = audit_clips(clips, [group])
    assert found["near_identical_clips"] == [group]
    assert found["leaks_in_train"] == []
    assert (
        "clips that look alike: 3 in 1 groups, 1 of them across the splits, 1 under both labels; look at them, nothing "
        f"is left out for it; the first {paths[0]} and {paths[1]} and 1 more"
    ) in audit_in_words(found).splitlines()


def test_pairs_of_an_earlier_audit_become_groups(tmp_path: Path) -> None:
    def pair(one: str, other: str, bits: int, *, across: bool = False) -> dict[str, Any]:
        return {"paths": [one, other], "different_bits": bits, "across_splits": across, "both_labels": False}

    pairs = [pair("a", "b", 2), pair("c", "d", 0), pair("e", "f", 1), pair("a", "d", 5, across=True)]
    (tmp_path / "audit.json").write_text(
        json.dumps({"schema_version": 2, "jsonl": {}, "near_identical_clips": pairs, "leaks_in_train": ["kept"]})
    )
    audit = read_audit(tmp_path)
    assert audit and audit["leaks_in_train"] == ["kept"]
    assert audit["near_identical_clips"] == [
        {"paths": list("abcd"), "clips": 4, "different_bits": 5, "across_splits": True, "both_labels": False},
        {"paths": list("ef"), "clips": 2, "different_bits": 1, "across_splits": False, "both_labels": False},
    ]


def test_empty_files_are_failed_clips_and_no_leak() -> None:
    """Four downloads of no byte have one content, in both splits and under both labels."""
    empty = [
        replace(clip(split, digit, "0"), status="failed", samples=(), reason="an empty file")
        for split, digit in (("train", 0), ("train", 4), ("test", 1), ("test", 5))
    ]
    sound = [clip("train", 2, "a"), clip("train", 6, "b"), clip("test", 3, "c"), clip("test", 7, "d")]
    found = audit_clips([*empty, *sound], [])
    assert (found["identical_clips"], found["test_clips_with_twins"], found["leaks_in_train"]) == ([], [], [])
    assert sorted(each["path"] for each in found["damaged"]) == sorted(each.path for each in empty)
    lines = audit_in_words(found).splitlines()
    at = lines.index("damaged clips: 0 partial, 4 failed")
    assert lines[at + 1] == (
        "  failed, so in no split: 4 clips, the first test/1_unauthorized_intervention/1_0.mp4 (an empty file)"
    )
    assert "identical clips: 0 groups, 0 of them in both splits, 0 under both labels" in lines


def test_a_test_clip_whose_copy_in_train_has_no_frame_has_no_twin() -> None:
    """As where one of two copies couldn't be read from its disk."""
    lost = replace(clip("train", 6, "0"), status="failed", samples=(), reason="unreadable")
    assert twins([lost, clip("test", 6, "0")]) == []


def test_the_script_wants_finished_records(tmp_path: Path) -> None:
    write_clips(tmp_path / CLIPS_FILE, [replace(make_clip("train", 0, "0_tr1"), status="pending", samples=())])
    with pytest.raises(InputError, match="extraction stopped before 1 clips; run data_prep/extract_frames"):
        audit.main(["--data", str(tmp_path)])
    (tmp_path / CLIPS_FILE).write_text("")
    with pytest.raises(InputError, match="holds no clip; run data_prep/extract_frames"):
        audit.main(["--data", str(tmp_path)])
