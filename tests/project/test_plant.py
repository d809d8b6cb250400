"""The documents' worked example of another plant: the drawings in folders of their own, from there to answers.

Its commands are run as they stand there, on few and short clips and by few updates.
"""

import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import constants

from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.demo.plant import CLASSES, PROMPT
from data_prep.files import PROJECT_ROOT
from data_prep.hub.source import FramesSource, open_dataset
from recipes.adapter.safety_record import read_record
from recipes.serving.examples import examples_in
from tests.project.documents import blocks_of

CAMERAS = {"hall_east", "hall_west", "press_shop"}
TRAINING = ["--max_steps", "4", "--warmup_steps", "0", "--eval_steps", "4", "--save_steps", "4", "--lora_r", "2"]
TRAINING += ["--lora_target_modules", "q_proj", "--max_pixels", "12544", "--vision_cache", "cache/vision"]
# What makes the commands quick: fewer clips, drawn and decoded by one process, and short runs on small frames.
QUICKLY = {
    "make_demo_clips": ["--train-clips", "24", "--test-clips", "20", "--workers", "1"],
    "extract_frames": ["--workers", "1"],
    "sft_qwen2vl": TRAINING,
    "eval_qwen2vl": ["--skip-base-model"],
    "bench_cameras": ["--cameras", "hall_east", "--out", "outputs/bench", "--", *TRAINING],
}


def section() -> str:
    text = (PROJECT_ROOT / "docs" / "data.md").read_text()
    return re.split(r"^## ", text.partition("\n## Another plant\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def placed(word: str, root: Path) -> str:
    """Return a word of a command with its place below `root`, where it names one that commands work in."""
    return str(root / word) if re.match(r"(data|outputs|cache)/", word) else word


def run(command: str, root: Path) -> str:
    """Run one command of the documents and return what it prints."""
    words = [word for word in shlex.split(command) if word not in ("accelerate", "launch", "--quiet", "python")]
    if "|" in words:
        shell = " ".join(placed(word, root) for word in command.split())
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", shell],
            cwd=PROJECT_ROOT,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            check=True,
        )
        return done.stdout.decode()
    script = Path(words[0])
    main = importlib.import_module(".".join(script.with_suffix("").parts)).main
    with redirect_stdout(io.StringIO()) as said:
        assert main([placed(word, root) for word in [*words[1:], *QUICKLY.get(script.stem, [])]]) == 0
    return said.getvalue()


@dataclass(frozen=True)
class Example:
    """Where the example's commands worked, and what each printed, in order."""

    root: Path
    said: list[str]

    def report(self, folder: str) -> dict[str, Any]:
        """Return an evaluation's report.json."""
        (file,) = self.root.glob(f"outputs/{folder}/report.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Run the ten commands, make a second plant, and join both."""
    root = tmp_path_factory.mktemp("plant")
    ten, joined = blocks_of(section(), "bash")
    second = [line.replace("data/plant", "data/second_plant") for line in ten.splitlines()[:3]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(root / "hf"))
        patch.setattr(constants, "HF_HUB_CACHE", str(root / "hf" / "hub"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "hf" / "datasets")
        patch.setattr("data_prep.demo.clips.MIN_SECONDS", 1.05)
        patch.setattr("data_prep.demo.clips.MAX_SECONDS", 1.5)
        said = [run(command, root) for command in ten.splitlines()]
        run(f"{second[0]} --seed 1", root)
        said += [run(command, root) for command in (*second[1:], *joined.splitlines())]
        yield Example(root, said)


def test_there_are_ten_commands_and_the_files_are_as_shown() -> None:
    ten, joined = blocks_of(section(), "bash")
    assert (len(ten.splitlines()), len(joined.splitlines())) == (10, 1)
    assert blocks_of(section(), "yaml") == [CLASSES]


def splits_of(source: FramesSource) -> dict[str, set[tuple[str, str]]]:
    return {split: set(zip(rows["camera"][:], rows["clip"][:], strict=True)) for split, rows in source.dataset.items()}


def test_clips_have_cameras_days_and_splits_of_their_own(example: Example) -> None:
    clips = read_clips(example.root / "data/plant" / CLIPS_FILE)
    assert len(clips) == 44
    assert {clip.camera for clip in clips} == CAMERAS
    assert Counter(clip.split_from for clip in clips).keys() <= {"day", "copy"}
    days = {(clip.camera, clip.day, clip.split) for clip in clips if clip.split_from == "day"}
    assert len(days) == len({(camera, day) for camera, day, _ in days}), "no day of a camera is in two splits"
    assert {camera for camera, _, split in days if split == "test"} == CAMERAS
    assert "cameras: 3\n" in example.said[3]
    assert re.search(r"by the day of their camera, 3 of \d+ such days test", example.said[3])


def test_one_camera_is_held_out_for_validation(example: Example) -> None:
    splits = splits_of(open_dataset("local/plant"))
    (held_out,) = {camera for camera, _ in splits["validation"]}
    assert {camera for camera, _ in splits["train"]} == CAMERAS - {held_out}
    assert list(example.report("plant/eval/*-validation")["per_camera"]) == [held_out]


def test_question_goes_from_its_file_to_the_adapter(example: Example) -> None:
    assert read_record(example.root / "outputs/plant").prompt == PROMPT.strip()
    assert example.report("plant/eval")["config"]["trained_with"]["prompt"] == PROMPT.strip()


def test_report_has_the_plants_own_classes_and_cameras(example: Example) -> None:
    report = example.report("plant/eval")
    own = {line.partition(":")[0] for line in CLASSES.splitlines()}
    assert set(report["per_source_class"]) <= own and len(report["per_source_class"]) >= 4
    assert set(report["per_camera"]) == CAMERAS
    page = (example.root / "outputs/plant/eval/report.html").read_text()
    assert "By camera" in page and "<td>press_shop</td>" in page and "a worker at the press without a vest" in page


def test_answers_are_the_two(example: Example) -> None:
    frames = list((example.root / "data/plant/frames/test/unsafe").glob("*/0000.jpg"))
    answers = example.said[8].splitlines()
    assert len(answers) == len(frames) > 4
    assert set(answers) <= {"SAFE", "UNSAFE"}
    names = [name for name, _ in examples_in(example.root / "data/plant")]
    assert "a clip" in names, "the page has one to try"


def test_camera_that_is_left_out_is_what_is_asked(example: Example) -> None:
    assert "| hall_east |" in example.said[9] and "hall_west" not in example.said[9]
    splits = splits_of(open_dataset("local/without-camera-1"))
    assert {camera for camera, _ in splits["test"]} == {"hall_east"}
    assert {camera for camera, _ in splits["train"] | splits["validation"]} == {"hall_west", "press_shop"}
    (row,) = json.loads((example.root / "outputs/bench/cameras.json").read_text())["cameras"]
    assert (row["camera"], row["clips"]) == ("hall_east", len({clip for _, clip in splits["test"]}))


def test_second_plant_is_joined_without_a_name_in_common(example: Example) -> None:
    splits = splits_of(open_dataset("local/both_plants"))
    everything = set().union(*splits.values())
    assert {camera for camera, _ in everything} == {f"{p}/{c}" for p in ("plant", "second_plant") for c in CAMERAS}
    assert all(camera.partition("/")[0] == clip.partition("/")[0] for camera, clip in everything)
    alone = set().union(*splits_of(open_dataset("local/plant")).values())
    assert {clip for _, clip in everything if clip.startswith("plant/")} == {f"plant/{clip}" for _, clip in alone}
