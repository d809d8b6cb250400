"""The demo's clips: shared out by the prior, drawn by their numbers alone, copied where the published ones are."""

import io
from collections import Counter

import av
import numpy as np
import pytest
from PIL import Image

from data_prep.demo.clips import COPIES, PlannedClip, encode_clip, plan_clips, scene_of, with_copies
from data_prep.demo.renderer import Renderer
from data_prep.labels import SOURCE_CLASSES


@pytest.mark.parametrize(
    ("split", "count", "unsafe", "fewest_of_a_class"),
    [("train", 120, 96, 6), ("test", 60, 30, 7), ("train", 8, 4, 1), ("test", 9, 4, 1), ("train", 60, 48, 3)],
)
def test_plan_shares_clips_by_the_prior(split: str, count: int, unsafe: int, fewest_of_a_class: int) -> None:
    plan = plan_clips(split, count)
    per_class = Counter(clip.source_class.digit for clip in plan)
    assert len({clip.path for clip in plan}) == len(plan) == count
    assert sum(clip.source_class.label == "UNSAFE" for clip in plan) == unsafe
    assert (sorted(per_class), min(per_class.values())) == (list(range(8)), fewest_of_a_class)


def test_clip_is_three_to_eight_seconds_of_h264() -> None:
    content = encode_clip(PlannedClip("test", SOURCE_CLASSES[5], 1), seed=0)
    with av.open(io.BytesIO(content), format="mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height, stream.average_rate) == ("h264", 640, 360, 24)
        assert 3 * 24 <= sum(1 for _ in container.decode(stream)) <= 8 * 24


def test_seed_split_class_and_number_decide_the_bytes(short_clips: None) -> None:
    def clip(split: str = "train", digit: int = 3, number: int = 1, seed: int = 0) -> bytes:
        return encode_clip(PlannedClip(split, SOURCE_CLASSES[digit], number), seed)

    assert clip() == clip()
    assert len({clip(), clip(split="test"), clip(digit=7), clip(number=2), clip(seed=1)}) == 5


def test_frames_survive_the_encoder(short_clips: None) -> None:
    """What is decoded is what was drawn, but for the compression."""
    clip = PlannedClip("train", SOURCE_CLASSES[3], 1)
    scene, _ = scene_of(clip, seed=0)
    with av.open(io.BytesIO(encode_clip(clip, seed=0)), format="mp4") as container:
        decoded = next(container.decode(video=0)).to_image()
    assert np.abs(_floats(decoded) - _floats(Renderer(scene).frame(0))).mean() < 4


def _floats(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


def default_plan() -> list[PlannedClip]:
    return with_copies(plan_clips("train", 120) + plan_clips("test", 60))


def test_copies_stand_where_the_published_ones_do() -> None:
    """Across classes within a split and across splits, and under both labels, of which one is in test."""
    copies = [clip for clip in default_plan() if clip.copy_of]
    assert len(copies) == len(COPIES) == 4
    pairs = [(copy, copy.copy_of) for copy in copies if copy.copy_of]
    assert all(copy.source_class != source.source_class and source.copy_of is None for copy, source in pairs)
    across_splits = [copy for copy, source in pairs if copy.split != source.split]
    contradictory = [copy for copy, source in pairs if copy.source_class.label != source.source_class.label]
    assert [len(across_splits), len(contradictory)] == [2, 2]
    assert [copy.split for copy in contradictory].count("test") == 1


@pytest.mark.parametrize("seed", range(5))
def test_copied_scene_shows_what_both_folders_say(seed: int) -> None:
    for clip in default_plan():
        if clip.copy_of:
            scene, _ = scene_of(clip, seed)
            assert (scene, clip.source_class.digit) == (scene_of(clip.copy_of, seed)[0], 2)
            assert scene.panel_open and scene.person is not None


def test_copies_are_equal_to_the_byte(short_clips: None) -> None:
    for clip in default_plan():
        if clip.copy_of:
            assert encode_clip(clip, seed=0) == encode_clip(clip.copy_of, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_few_first_seconds_do_not_show_the_behaviour_yet(seed: int) -> None:
    """At most 3 % of the frames at one a second, of about 5.9 a clip; each late clip hides its first alone."""
    for split, clips in (("train", 120), ("test", 60)):
        scenes = [scene_of(clip, seed)[0] for clip in default_plan() if clip.split == split]
        assert all(0 <= scene.behaviour_from_seconds < 1 for scene in scenes)
        late = sum(scene.behaviour_from_seconds > 0 for scene in scenes)
        assert late / (5.9 * clips) <= 0.03
