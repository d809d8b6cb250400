"""What answering is predicted to take against what was measured on one H100 with the 7B at full size."""

import json
from typing import Any

import pytest

from data_prep.disk.byte_counts import GIB
from data_prep.files import PROJECT_ROOT
from recipes.layers.sizes import UNPACKED_BYTES
from recipes.machine.answering_memory import PIECES_BYTES, AnsweringPlan, plan_answering, predict_answering
from recipes.machine.memory import RESERVED
from tests.recipes.machine.test_memory import CONFIG, CONFIG_2B

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
    assert predict_answering(VALUES, CONFIG, base_alone=False).card_gib == pytest.approx(peak, rel=0.02)


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


def test_weight_is_unpacked_in_parts_where_the_adapter_is_always_on() -> None:
    working = predict_answering(VALUES, CONFIG, base_alone=False).card["forward pass"]
    assert working == 530 * (7 * 3584 + 3 * 18944) * 2 + UNPACKED_BYTES


@pytest.mark.parametrize(
    ("values", "free_gib", "frames", "plan"),
    [
        (VALUES, 7.6, 4, (4, 0, 0)),
        (VALUES, 5.0, 1, (1, 0, 0)),
        (VALUES, 4.5, 1, (1, 6, 0)),
        (VALUES, 3.2, 1, (1, 18, 0)),
        (VALUES, 3.2, 4, (4, 22, 0)),
        (VALUES, 1.6, 1, (1, 28, 11)),
        (VALUES, 1.6, 4, (4, 28, 26)),
        (VALUES, 1.3, 4, (3, 28, 31)),
        (VALUES, 1.1, 4, (1, 28, 24)),
        (VALUES, 0.5, 4, (1, 28, 32)),
        (IN_16_BITS, 16.0, 1, (1, 0, 0)),
        (IN_16_BITS, 7.2, 1, (1, 18, 0)),
    ],
)
def test_as_many_frames_at_once_as_fit_and_no_more_on_the_host_than_must(
    values: dict[str, Any], free_gib: float, frames: int, plan: tuple[int, int, int]
) -> None:
    assert plan_answering(values, CONFIG, free_gib * GIB, frames) == plan


@pytest.mark.parametrize(
    ("named", "plan"),
    [
        ({"layers": 0}, (1, 0, 32)),
        ({"layers": 28}, (4, 28, 26)),
        ({"vision_blocks": 32}, (4, 26, 32)),
        ({"layers": 28, "vision_blocks": 0}, (1, 28, 0)),
        ({"layers": 20, "vision_blocks": 5}, (1, 20, 5)),
    ],
)
def test_what_is_named_lies_there_and_the_rest_follows(named: dict[str, int], plan: tuple[int, int, int]) -> None:
    assert plan_answering(VALUES, CONFIG, 1.6 * GIB, 4, **named) == plan


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("free_gib", [4.5, 3.2, 2.0, 1.6, 1.4])
def test_what_is_placed_fits_and_one_less_on_the_host_would_not(free_gib: float, frames: int) -> None:
    def reserved(layers: int, blocks: int) -> float:
        need = predict_answering(
            VALUES, CONFIG, frames=frames, layers_on_host=layers, vision_blocks_on_host=blocks
        ).card_gib
        return RESERVED * need + (PIECES_BYTES / GIB if frames > 1 else 0)

    at_once, layers, blocks = plan_answering(VALUES, CONFIG, free_gib * GIB, frames)
    one_less = (layers, blocks - 1) if blocks > 3 else (layers - 1, 0)
    assert at_once == frames
    assert reserved(layers, blocks) <= free_gib < reserved(*one_less)


def test_tied_table_and_few_layers_are_placed_as_well() -> None:
    assert predict_answering(VALUES, CONFIG_2B).host["LM head"] == 0
    two = {**CONFIG, "num_hidden_layers": 2}
    assert plan_answering(VALUES, two, 0.0, 1) == AnsweringPlan(1, 2, 32), "nothing fits, so all of both"
