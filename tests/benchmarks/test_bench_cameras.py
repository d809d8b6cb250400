"""A whole turn of it is run by tests/project/test_plant.py."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.bench_cameras import as_table, cameras_of, main
from data_prep.errors import InputError
from tests.tiny_data import many_clips, write_data

CONFIG = ["--config", "recipes/configs/demo_cpu.yaml"]


def write_cameras(folder: Path, *cameras: str | None) -> Path:
    clips = [replace(clip, camera=cameras[number % len(cameras)]) for number, clip in enumerate(many_clips())]
    return write_data(folder, clips)


def test_cameras_are_those_of_the_clips_in_natural_order(tmp_path: Path) -> None:
    assert cameras_of(write_cameras(tmp_path, "cam 10", None, "cam 9")) == ["cam 9", "cam 10"]


@pytest.mark.parametrize(
    ("cameras", "flags", "message"),
    [
        (("gate", "hall"), ["--cameras", "yard"], r"--cameras yard: not a camera of .*; known: gate, hall"),
        (("gate",), [], "1 cameras are known, and leaving one out takes two"),
        ((None,), [], "0 cameras are known"),
    ],
)
def test_mistakes_cost_no_training(
    tmp_path: Path, cameras: tuple[str | None, ...], flags: list[str], message: str
) -> None:
    data = write_cameras(tmp_path / "data", *cameras)
    with pytest.raises(InputError, match=message):
        main(["--data", str(data), *CONFIG, "--out", str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out").exists()


def test_table() -> None:
    row = {"camera": "gate", "clips": 9, "frames": 41, "macro_f1": 0.9, "balanced_accuracy": 0.91, "recall": 1.0}
    row |= {"auroc": None, "probe_macro_f1": None, "intervals": {"macro_f1": (0.8, 0.95)}}
    assert as_table([row, {**row, "intervals": {"macro_f1": None}}]).splitlines()[2:] == [
        "| gate | 9 | 41 | 0.900 | 0.800 to 0.950 | 0.910 | 1.000 | - | - |",
        "| gate | 9 | 41 | 0.900 | - | 0.910 | 1.000 | - | - |",
    ]
