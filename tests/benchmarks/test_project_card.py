"""The projection onto a card that isn't at hand, beside operations and bytes counted by hand."""

import subprocess
import sys
from typing import Any

import pytest

from benchmarks.project_card import (
    MEASURED_SHARE,
    Seconds,
    card_of,
    parse_arguments,
    seconds_a_frame,
    seconds_an_answer,
)
from data_prep.files import PROJECT_ROOT
from recipes.layers.sizes import ALL
from recipes.machine.cards import CARDS, Card
from tests.recipes.machine.test_memory import CONFIG, settings_of

CARD = Card(gib=8, flops=24e12, memory=192e9, bus=12e9)
PLAIN = {"layers_on_host": "0", "vision_blocks_on_host": "0", "recomputed_layers": ALL}
WEIGHTS, LANGUAGE_TFLOP, TOWER_TFLOP = 6.525e9, 6.74, 3.06


def seconds(recipe: str, frames: int = 1, **changed: Any) -> Seconds:
    settings = settings_of(recipe, per_device_train_batch_size=frames, **{**PLAIN, **changed})
    return seconds_a_frame(settings, CONFIG, CARD)


def test_projection_counts_each_pass() -> None:
    one, four = seconds("8gb"), seconds("8gb", 4)
    assert one.arithmetic == pytest.approx(0.97, abs=0.01), "23.3 TFLOP a frame with one recomputation"
    assert one.memory == pytest.approx(3 * WEIGHTS * 4.516 / 192e9, rel=0.01)
    assert one.head == pytest.approx(1.09e9 / 12e9, rel=0.01)
    assert (four.arithmetic, four.memory) == pytest.approx((one.arithmetic, one.memory / 4))
    assert (four.head, four.layers) == (pytest.approx(one.head / 4), 0.0)


@pytest.mark.parametrize(("recomputed", "passes"), [(ALL, 3), ("14", 2.5), ("0", 2)])
def test_layers_that_are_not_recomputed_cost_two_passes(recomputed: str, passes: float) -> None:
    found = seconds("6gb", recomputed_layers=recomputed)
    assert found.arithmetic == pytest.approx(passes * LANGUAGE_TFLOP / 24, rel=0.01)
    assert found.memory == pytest.approx(passes * WEIGHTS * 4.516 / 192e9, rel=0.01)
    without = seconds("6gb", recomputed_layers=recomputed, activation_checkpointing=False)
    assert without.arithmetic == pytest.approx(2 * LANGUAGE_TFLOP / 24, rel=0.01)


@pytest.mark.parametrize(
    ("recipe", "changed", "gigabytes"),
    [
        ("8gb", {"layers_on_host": ALL}, 2 * 3.368),
        ("8gb", {"layers_on_host": "14"}, 3.368),
        ("6gb", {"layers_on_host": ALL, "load_in_4bit": False}, 2 * 13.05),
        ("8gb", {"vision_blocks_on_host": ALL}, 32 * 12 * 1280**2 * 2 / 1e9),
        ("6gb", {"vision_blocks_on_host": ALL}, 0.0),
    ],
)
def test_what_streams_comes_over_the_bus(recipe: str, changed: dict[str, Any], gigabytes: float) -> None:
    assert seconds(recipe, **changed).layers == pytest.approx(gigabytes / 12, rel=0.01)
    assert seconds(recipe, 4, **changed).layers == pytest.approx(gigabytes / 12 / 4, rel=0.01)


def test_layers_come_while_others_compute() -> None:
    hidden = Seconds(arithmetic=0.68, memory=0.5, head=0.1, layers=1.4)
    assert (hidden.floor, hidden.expected) == (1.5, pytest.approx(1 * MEASURED_SHARE / 0.68 + 0.5 + 0.1))
    assert Seconds(arithmetic=0.68, memory=0.5, head=0.1, layers=1.75).expected == pytest.approx(1.85)


def test_rates_that_are_given_replace_the_card_s() -> None:
    assert card_of(parse_arguments([])) == CARDS["RTX A1000"] == Card(8, 26.9e12, 192e9, 12e9)
    laptop = card_of(parse_arguments(["--card", "RTX A1000 Laptop 4 GB", "--bus-gb-per-second", "6"]))
    assert laptop == Card(4, 18.7e12, 176e9, 6e9)


def test_projection_is_printed_as_one() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/project_card.py", "--like", "tiny_base/weights"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "projection, not measured: 26.9 TFLOP/s, 192 GB/s, 12 GB/s to the card" in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["1", "2", "4", "8"]
    assert [line.partition(":")[0] for line in lines[5:]] == [
        "one frame answered, 480 visual tokens",
        "one frame answered, 252 visual tokens",
    ]


def test_projected_answer_takes_one_pass() -> None:
    arithmetic, memory = seconds_an_answer(401408, CONFIG, CARD)
    assert arithmetic == pytest.approx(9.8 / 24, rel=0.01)
    assert memory == pytest.approx(WEIGHTS * 4.516 / 192e9, rel=0.01)
