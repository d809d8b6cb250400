"""What answering is predicted to take against what was measured on one H100 with the 7B at full size."""

import json
from typing import Any

import pytest

from data_prep.disk.byte_counts import GIB
from data_prep.files import PROJECT_ROOT
from recipes.machine.answering_memory import answering_placement, predict_answering
from recipes.machine.memory import RESERVED
from tests.recipes.machine.test_memory import ABSMAX_GIB, CONFIG, CONFIG_2B

VALUES: dict[str, Any] = {
    "dtype": "bfloat16",
    "load_in_4bit": True,
    "max_pixels": 401408,
    "lora_r": 16,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
IN_16_BITS = {**VALUES, "load_in_4bit": False}


def test_prediction_is_within_a_fiftieth_of_the_measured_peak() -> None:
    measured = json.loads((PROJECT_ROOT / "benchmarks/results/infer_7b_h100.json").read_text())
    peak = measured["arms"]["small"]["peak_allocated_gib"]
    assert predict_answering(VALUES, CONFIG).card_gib == pytest.approx(peak, rel=0.02)


@pytest.mark.parametrize(("cap", "on_host"), [("1.6", (28, 11)), ("3.2", (18, 0)), ("5.2", (0, 0)), ("7.2", (0, 0))])
def test_prediction_is_within_a_twentieth_of_what_answering_took_under_a_cap(
    cap: str, on_host: tuple[int, int]
) -> None:
    arms = json.loads((PROJECT_ROOT / "benchmarks/results/small_card_7b_h100.json").read_text())["arms"]
    need = predict_answering(VALUES, CONFIG, layers_on_host=on_host[0], vision_blocks_on_host=on_host[1])
    assert need.card_gib == pytest.approx(arms[f"answered_{cap}"]["peak_allocated_gib"], rel=0.05)


def test_layers_that_pass_through_the_card_take_what_a_prototype_took() -> None:
    need = predict_answering(VALUES, CONFIG, layers_on_host=28)
    assert need.card_gib + ABSMAX_GIB == pytest.approx(1.95, rel=0.02)


def test_what_leaves_the_card_is_on_the_host() -> None:
    plain, streamed = (
        predict_answering(VALUES, CONFIG, layers_on_host=layers, vision_blocks_on_host=blocks)
        for layers, blocks in ((0, 0), (28, 32))
    )
    assert plain.host_gib == pytest.approx(2 * 1.015, rel=1e-3)
    assert streamed.host_gib - plain.host_gib == pytest.approx(28 * 0.112 + 32 * 0.0366, rel=2e-3)
    assert plain.card_gib - streamed.card_gib == pytest.approx(26 * 0.112 + 30 * 0.0366, rel=2e-3)


def test_adapter_lies_on_the_card_in_32_bits() -> None:
    assert predict_answering(VALUES, CONFIG).card["adapter"] == 4 * 40_370_176
    one = {**VALUES, "lora_r": 8, "lora_target_modules": ["q_proj"]}
    assert predict_answering(one, CONFIG).card["adapter"] == 4 * 28 * 8 * (3584 + 3584)


@pytest.mark.parametrize(
    ("values", "frames", "working"),
    [
        (VALUES, 1, 530 * (7 * 3584 + 3 * 18944) * 2 + 3584 * 18944 * 2),
        (VALUES, 4, 4 * 530 * (7 * 3584 + 3 * 18944) * 2 + 3584 * 18944 * 2),
        (IN_16_BITS, 1, 1920 * 19 * 1280 * 2),
        (IN_16_BITS, 4, 4 * 1920 * 19 * 1280 * 2),
    ],
)
def test_larger_of_a_layer_s_pass_and_a_vision_block_s_counts(
    values: dict[str, Any], frames: int, working: int
) -> None:
    """In 4 bits a layer works with an unpacked weight as well; in 16 the vision tower works with more."""
    assert predict_answering(values, CONFIG, frames=frames).card["forward pass"] == working


@pytest.mark.parametrize(
    ("values", "free_gib", "frames", "on_host"),
    [
        (VALUES, 7.6, 4, (0, 0)),
        (VALUES, 5.0, 1, (0, 0)),
        (VALUES, 4.5, 1, (6, 0)),
        (VALUES, 3.2, 1, (18, 0)),
        (VALUES, 3.2, 4, (20, 0)),
        (VALUES, 1.6, 1, (28, 11)),
        (VALUES, 1.6, 4, (28, 18)),
        (VALUES, 0.5, 1, (28, 32)),
        (IN_16_BITS, 16.0, 1, (0, 0)),
        (IN_16_BITS, 7.2, 1, (18, 0)),
    ],
)
def test_no_more_lies_on_the_host_than_must(
    values: dict[str, Any], free_gib: float, frames: int, on_host: tuple[int, int]
) -> None:
    assert answering_placement(values, CONFIG, free_gib * GIB, frames) == on_host


@pytest.mark.parametrize("free_gib", [4.5, 3.2, 2.0, 1.6, 1.2])
def test_what_is_placed_fits_and_one_less_on_the_host_would_not(free_gib: float) -> None:
    def reserved(layers: int, blocks: int) -> float:
        return (
            RESERVED * predict_answering(VALUES, CONFIG, layers_on_host=layers, vision_blocks_on_host=blocks).card_gib
        )

    layers, blocks = answering_placement(VALUES, CONFIG, free_gib * GIB, 1)
    one_less = (layers, blocks - 1) if blocks > 3 else (layers - 1, 0)
    assert reserved(layers, blocks) <= free_gib < reserved(*one_less)


def test_tied_table_and_few_layers_are_placed_as_well() -> None:
    assert predict_answering(VALUES, CONFIG_2B).host["LM head"] == 0
    two = {**CONFIG, "num_hidden_layers": 2}
    assert answering_placement(VALUES, two, 0.0, 1) == (2, 32), "nothing fits, so all of both"
