import dataclasses
import random
from collections import Counter
from pathlib import Path

import pytest

from data_prep.labels import PROMPT
from data_prep.rows.dataset import build_dataset
from data_prep.rows.frames import Frame
from data_prep.rows.validation import cut_validation
from tests.tiny_data import make_clip, many_clips, write_data

pytestmark = pytest.mark.usefixtures("own_cache")

# Clips of train by class in the published data set, and a tenth of each.
PUBLISHED = {0: 178, 1: 97, 2: 129, 3: 48, 4: 50, 5: 23, 6: 19, 7: 22}
TENTH = {0: 18, 1: 10, 2: 13, 3: 5, 4: 5, 5: 2, 6: 2, 7: 2}


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
