import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.clips import lookalikes
from data_prep.clips.lookalikes import near_identical
from data_prep.clips.records import Clip
from data_prep.demo.renderer import Renderer
from data_prep.demo.scenes import sample_scene
from data_prep.errors import InputError
from tests.tiny_data import make_clip


def write_clip(data: Path, clip: Clip, pictures: list[Image.Image], quality: int) -> None:
    for path, picture in zip(clip.frame_paths, pictures, strict=True):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(data / path, "JPEG", quality=quality)


def drawn(digit: int, seed: int) -> list[Image.Image]:
    renderer = Renderer(sample_scene(digit, np.random.default_rng(seed)))
    return [renderer.frame(second) for second in (0.0, 1.0, 2.0)]


@pytest.fixture(scope="module")
def recoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Clip]]:
    """Twelve clips of the two cameras, the first of them once more, smaller and compressed harder, in test."""
    data = tmp_path_factory.mktemp("data")
    clips = [
        replace(make_clip("train", digit, f"{digit}_tr{n}"), samples=(0, 1, 2))
        for n, digit in enumerate((0, 3, 6, 2) * 3)
    ]
    for seed, clip in enumerate(clips):
        write_clip(data, clip, drawn(int(clip.source_class[0]), seed), quality=90)
    again = replace(make_clip("test", 4, "4_te1"), samples=(0, 1, 2))
    write_clip(data, again, [picture.resize((480, 270)) for picture in drawn(0, 0)], quality=40)
    return data, [*clips, again]


def test_a_clip_encoded_twice_is_found_and_no_other(recoded: tuple[Path, list[Clip]]) -> None:
    data, clips = recoded
    (group,) = near_identical(data, clips)
    assert group.pop("different_bits") <= 6
    assert group == {"paths": [clips[-1].path, clips[0].path], "clips": 2, "across_splits": True, "both_labels": True}


def test_the_same_file_twice_is_told_elsewhere(recoded: tuple[Path, list[Clip]]) -> None:
    data, clips = recoded
    assert near_identical(data, [clips[0], replace(clips[-1], sha256=clips[0].sha256)]) == []


def test_one_frame_alike_is_not_enough(recoded: tuple[Path, list[Clip]]) -> None:
    data, clips = recoded
    last, other = data / clips[-1].frame_paths[-1], data / clips[2].frame_paths[-1]
    kept = last.read_bytes()
    last.write_bytes(other.read_bytes())
    assert near_identical(data, clips) == []
    last.write_bytes(kept)


def renumbered(data: Path, clip: Clip, to: Path, old_of: dict[int, int]) -> Clip:
    """Lay out a clip's frames in another data folder, each sample with the frame of the old one that is named."""
    gappy = replace(clip, samples=tuple(old_of))
    (to / gappy.folder).mkdir(parents=True, exist_ok=True)
    for sample, old in old_of.items():
        (to / gappy.frame_path(sample)).write_bytes((data / clip.frame_path(old)).read_bytes())
    return gappy


@pytest.mark.parametrize(
    ("mine", "its"), [((0, 2), (0, 1, 2)), ((0, 1, 2), (0, 2)), ((0, 2), (0, 2)), ((1, 2), (0, 1, 2))]
)
def test_a_copy_that_lacks_samples_is_found(
    recoded: tuple[Path, list[Clip]], tmp_path: Path, mine: tuple[int, ...], its: tuple[int, ...]
) -> None:
    data, clips = recoded
    one = renumbered(data, clips[0], tmp_path, {sample: sample for sample in mine})
    again = renumbered(data, clips[-1], tmp_path, {sample: sample for sample in its})
    (pair,) = near_identical(tmp_path, [one, again])
    assert (pair["paths"], pair["different_bits"] <= 6) == ([again.path, one.path], True)


def test_frames_of_one_number_are_compared_and_not_of_one_position(
    recoded: tuple[Path, list[Clip]], tmp_path: Path
) -> None:
    """The third frame of four is alike, but it is sample 5 of one and 4 of the other, and their sample 3 is not."""
    data, clips = recoded
    one = renumbered(data, clips[0], tmp_path, {0: 0, 3: 0, 5: 1, 9: 2})
    again = renumbered(data, clips[-1], tmp_path, {0: 0, 3: 2, 4: 1, 9: 2})
    assert near_identical(tmp_path, [one, again]) == []
    again = renumbered(data, clips[-1], tmp_path, {0: 0, 3: 0, 4: 2, 9: 2})
    assert len(near_identical(tmp_path, [one, again])) == 1


def test_one_sample_that_both_have_is_not_enough(recoded: tuple[Path, list[Clip]], tmp_path: Path) -> None:
    data, clips = recoded
    one = renumbered(data, clips[0], tmp_path, {0: 0})
    again = renumbered(data, clips[-1], tmp_path, {0: 0, 7: 2})
    assert near_identical(tmp_path, [one, again]) == []


def hashed(monkeypatch: pytest.MonkeyPatch, bits_of: dict[str, int]) -> list[Clip]:
    """Clips by name, each of whose frames has so many of its hash's first bits set."""
    clips = [make_clip("train", 0, name) for name in bits_of]

    def hash_of(data: Path, path: str) -> np.ndarray:
        set_bits = np.arange(256) < bits_of[Path(path).parent.name]
        return np.packbits(set_bits).view(np.uint64)

    monkeypatch.setattr(lookalikes, "_hash", hash_of)
    return clips


def test_what_looks_alike_is_told_as_groups_with_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """`a` and `e` differ in 8 bits, more than is alike, and each is like one between them."""
    clips = hashed(monkeypatch, {"a": 0, "b": 100, "c": 4, "d": 107, "e": 8, "f": 101})
    groups = near_identical(Path(), clips)
    names = [[Path(path).stem for path in group["paths"]] for group in groups]
    assert (names, [group["clips"] for group in groups]) == ([["a", "c", "e"], ["b", "d", "f"]], [3, 3])
    assert [group["different_bits"] for group in groups] == [4, 6]


def test_copies_of_one_file_are_all_in_the_group_of_what_looks_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    *clips, copy = hashed(monkeypatch, {"a": 0, "b": 2, "c": 50, "copy": 2})
    copy = replace(make_clip("test", 4, "copy"), sha256=clips[1].sha256)
    (group,) = near_identical(Path(), [*clips, copy])
    assert [Path(path).stem for path in group["paths"]] == ["copy", "a", "b"]
    assert (group["across_splits"], group["both_labels"]) == (True, True)


@pytest.mark.parametrize("samples", [(0, 1, 2), (0, 2, 5)], ids=["whole", "with gaps"])
def test_thousands_of_black_clips_are_one_group_and_not_a_million_pairs(
    monkeypatch: pytest.MonkeyPatch, samples: tuple[int, ...]
) -> None:
    clips = hashed(monkeypatch, {f"0_tr{number}": 0 for number in range(1500)})
    began = time.monotonic()
    (group,) = near_identical(Path(), [replace(clip, samples=samples) for clip in clips])
    assert time.monotonic() - began < 10, "some tenth of a second; each with each, with gaps, is a minute"
    assert (group["clips"], len(group["paths"])) == (1500, 1500)
    assert len(json.dumps(group)) < 100 * 1500


def test_clips_without_frames_and_no_clips() -> None:
    assert near_identical(Path(), []) == []
    assert near_identical(Path(), [replace(make_clip("train", 0, "a"), status="failed", samples=())]) == []


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    clip = make_clip("train", 0, "0_tr1")
    with pytest.raises(InputError, match=r"frames/train/unsafe/0_tr1/0000\.jpg: no such image"):
        near_identical(tmp_path, [clip])
