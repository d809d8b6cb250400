"""The projection onto a card that isn't at hand, beside operations and bytes counted by hand."""

import subprocess
import sys

import pytest

from benchmarks.project_card import Card, seconds_a_frame, seconds_an_answer
from data_prep.files import PROJECT_ROOT
from tests.recipes.machine.test_memory import CONFIG, settings_of

CARD = Card(flops=24e12, memory=192e9, bus=12e9)


def test_projection_counts_each_pass() -> None:
    settings = settings_of("qwen2vl_7b_8gb", per_device_train_batch_size=1)
    arithmetic, memory, bus = seconds_a_frame(settings, CONFIG, CARD)
    assert arithmetic == pytest.approx(0.97, abs=0.01), "23.3 TFLOP a frame with one recomputation"
    assert memory == pytest.approx(3 * 6.525e9 * 4.516 / 192e9, rel=0.01)
    assert bus == pytest.approx(1.09e9 / 12e9, rel=0.01)
    four = seconds_a_frame({**settings, "per_device_train_batch_size": 4}, CONFIG, CARD)
    assert four == pytest.approx((arithmetic, memory / 4, bus / 4))


def test_projection_is_printed_as_one() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/project_card.py", "--like", "tiny_base/weights"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "projection, not measured" in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["1", "2", "4", "8"]
    assert [line.partition(":")[0] for line in lines[5:]] == [
        "one frame answered, 480 visual tokens",
        "one frame answered, 252 visual tokens",
    ]


def test_projected_answer_takes_one_pass() -> None:
    arithmetic, memory = seconds_an_answer(401408, CONFIG, CARD)
    assert arithmetic == pytest.approx(9.8 / 24, rel=0.01)
    assert memory == pytest.approx(6.525e9 * 4.516 / 192e9, rel=0.01)
