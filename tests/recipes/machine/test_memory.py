"""The prediction against what was measured on one H100 with the 7B at full size (benchmarks/README.md)."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring.recipe_arguments import fixed_settings
from data_prep.disk.byte_counts import GIB
from data_prep.files import PROJECT_ROOT
from recipes.layers.sizes import base_weights, visual_tokens
from recipes.machine.memory import PROCESS_BYTES, RESERVED, MemoryNeed, predict_memory, shortages

# The 7B's config.json, as far as sizes go.
CONFIG: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "vision_config": {"embed_dim": 1280, "depth": 32, "mlp_ratio": 4},
}


# The 2B's: its LM head is tied to the embedding.
CONFIG_2B: dict[str, Any] = {
    **CONFIG,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
TABLE_OF_THE_2B = 151936 * 1536 * 2 / GIB


def settings_of(recipe: str, **changed: Any) -> dict[str, Any]:
    return {**fixed_settings(recipe), **changed}


@pytest.mark.parametrize(
    ("recipe", "frames", "measured_gib"),
    [
        ("8gb", 1, 4.82),
        ("8gb", 4, 5.36),
        ("8gb", 8, 6.01),
        ("6gb", 1, 3.58),
        ("6gb", 4, 4.12),
        ("80gb", 16, 50.59),
        ("80gb", 1, 18.23),
    ],
)
def test_prediction_is_within_a_fiftieth_of_the_measured_peak(recipe: str, frames: int, measured_gib: float) -> None:
    need = predict_memory(settings_of(recipe, per_device_train_batch_size=frames), CONFIG)
    assert need.training_gib == pytest.approx(measured_gib, rel=0.02)


BASES = json.loads((PROJECT_ROOT / "benchmarks/results/bases_2b_h100.json").read_text())["arms"]
RUNS_OF_THE_2B = [
    ("6gb", BASES["6gb"]["runs"][0], {}),
    ("8gb", BASES["8gb"]["runs"][0], {}),
    ("8gb", BASES["8gb"]["runs"][1], {"head_on_host": False}),
    ("80gb", BASES["80gb"]["runs"][0], {}),
    ("8gb", BASES["packed"]["runs"][0], {}),
]


@pytest.mark.parametrize(("recipe", "run", "changed"), RUNS_OF_THE_2B, ids=[run["run"] for _, run, _ in RUNS_OF_THE_2B])
def test_prediction_is_within_a_fiftieth_of_a_whole_run_of_the_2b(
    recipe: str, run: dict[str, Any], changed: dict[str, Any]
) -> None:
    """Whole runs with few frames at once take most where they compute features, or validate four at once."""
    at_once = {"per_device_train_batch_size": run["frames_at_once"], "per_device_eval_batch_size": 4}
    need = predict_memory(settings_of(recipe, **at_once, **changed), CONFIG_2B)
    assert need.card_gib == pytest.approx(run["peak_allocated_gib"], rel=0.02)


def test_true_configuration_is_the_one_above(true_model_folder: Path) -> None:
    true = json.loads((true_model_folder / "config.json").read_text())
    settings = settings_of("8gb")
    assert predict_memory(settings, true) == predict_memory(settings, CONFIG)


@pytest.mark.parametrize(
    ("changed", "gib"),
    [
        ({"embedding_on_host": False}, 1.015),
        ({"head_on_host": False}, 1.015),
        ({"cache_vision_features": True}, -1.26),
        ({"unpack_base": True}, 8.95),
        ({"optimizer_on_host": False, "optim": "adamw_8bit"}, 0.263),
        ({"activation_checkpointing": False}, 27 * 0.0596 + 0.0187 - 28 * 0.0035 - 0.081),
        ({"layers_on_host": "all"}, -26 * 0.112),
        ({"layers_on_host": 10}, -8 * 0.112),
        ({"layers_on_host": 2}, 0.0),
        ({"vision_blocks_on_host": "all"}, -30 * 0.0366),
        ({"vision_blocks_on_host": 12}, -10 * 0.0366),
        ({"recomputed_layers": 24}, 3 * 0.0596 + 0.0187 - 4 * 0.0035 - 0.081),
    ],
)
def test_each_line_s_share(changed: dict[str, Any], gib: float) -> None:
    difference = (
        predict_memory(settings_of("8gb", **changed), CONFIG).training_gib
        - predict_memory(settings_of("8gb"), CONFIG).training_gib
    )
    assert difference == pytest.approx(gib, rel=0.05)


def test_all_layers_recomputed_and_none_are_what_the_switch_alone_says() -> None:
    def need(**changed: Any) -> MemoryNeed:
        return predict_memory(settings_of("8gb", **changed), CONFIG)

    assert need(recomputed_layers=28) == need(recomputed_layers="all") == need()
    assert need(recomputed_layers=0) == need(activation_checkpointing=False)
    peaks = [need(recomputed_layers=count).training_gib for count in range(25, -1, -1)]
    assert peaks == sorted(peaks), "each layer that isn't recomputed takes more, from the third on"


def test_layers_and_blocks_on_the_host_are_counted_there_in_4_bits_or_16() -> None:
    def on_host(part: str, **changed: Any) -> float:
        return predict_memory(settings_of("6gb", **changed), CONFIG).host[part] / GIB

    assert on_host("language model", layers_on_host="all") == pytest.approx(6.525e9 * 0.516 / GIB, rel=1e-3)
    assert on_host("language model", layers_on_host=7) == pytest.approx(6.525e9 / 4 * 0.516 / GIB, rel=1e-3)
    assert on_host("language model", layers_on_host="all", load_in_4bit=False) == pytest.approx(12.15, rel=1e-3)
    assert on_host("vision tower", vision_blocks_on_host="all") == pytest.approx(32 * 0.0366, rel=2e-3)
    assert on_host("language model") == on_host("vision tower") == 0


def test_vision_blocks_on_the_host_leave_two_on_the_card_while_features_are_computed() -> None:
    plain, streamed = (
        predict_memory(settings_of("6gb", vision_blocks_on_host=blocks), CONFIG) for blocks in (0, "all")
    )
    fewer = plain.filling["vision tower"] - streamed.filling["vision tower"]
    assert fewer / GIB == pytest.approx(30 * 0.0366, rel=2e-3)
    assert plain.card == streamed.card


@pytest.mark.parametrize(("recipe", "cap_gib"), [("2gb", 1.6), ("4gb", 3.2)])
def test_recipes_of_the_smallest_cards_fit_what_those_have_free(recipe: str, cap_gib: float) -> None:
    need = predict_memory(settings_of(recipe), CONFIG)
    assert not shortages(need, card_bytes=cap_gib * GIB, host_bytes=11.5 * GIB)


def test_the_4_gb_recipe_recomputes_no_layer_more_than_it_must() -> None:
    need = predict_memory(settings_of("4gb", recomputed_layers="23"), CONFIG)
    assert shortages(need, card_bytes=3.2 * GIB, host_bytes=64 * GIB)


def test_what_leaves_the_card_is_on_the_host_or_the_disk() -> None:
    need = predict_memory(settings_of("6gb"), CONFIG)
    assert need.host_gib == pytest.approx(2 * 1.015 + 0.6, rel=0.05)
    assert need.disk_bytes_a_frame == 480 * 3584 * 2
    large = predict_memory(settings_of("80gb"), CONFIG)
    assert (large.host_gib, large.disk_bytes_a_frame) == (0, 0)


@pytest.mark.parametrize(
    ("embedding_on_host", "head_on_host", "card", "host"),
    [(False, False, 1, 0), (True, False, 1, 1), (False, True, 1, 1), (True, True, 0, 1)],
)
def test_tied_table_counts_once_a_place(embedding_on_host: bool, head_on_host: bool, card: int, host: int) -> None:
    settings = settings_of("8gb", embedding_on_host=embedding_on_host, head_on_host=head_on_host)
    need = predict_memory(settings, CONFIG_2B)
    assert (need.card["embedding"] + need.card["LM head"]) / GIB == pytest.approx(card * TABLE_OF_THE_2B)
    assert (need.host["embedding"] + need.host["LM head"]) / GIB == pytest.approx(host * TABLE_OF_THE_2B)
    older = {"text_config": CONFIG_2B, "vision_config": CONFIG["vision_config"]}  # where versions before 5 saved it
    assert predict_memory(settings, older) == need


def test_small_base_takes_most_while_its_vision_features_are_computed() -> None:
    settings = settings_of("6gb", per_device_train_batch_size=1)
    small, large = predict_memory(settings, CONFIG_2B), predict_memory(settings, CONFIG)
    assert small.training_gib < 1.24 < small.card_gib < 1.6, "the tower alone takes 1.24 GiB"
    assert large.card_gib > large.training_gib == pytest.approx(3.51, abs=0.01), "it validates four frames at once"
    assert not predict_memory(settings_of("8gb"), CONFIG_2B).filling


@pytest.mark.parametrize(("config", "parameters"), [(CONFIG, 8_291_375_616), (CONFIG_2B, 2_208_985_600)])
def test_weights_of_a_base_are_the_published_number(config: dict[str, Any], parameters: int) -> None:
    assert base_weights(config) == pytest.approx(parameters, rel=5e-4), "norms and biases apart"


def test_base_packed_with_single_quantisation_takes_more() -> None:
    single = {**CONFIG, "quantization_config": {"load_in_4bit": True}}
    double = {**CONFIG, "quantization_config": {"load_in_4bit": True, "bnb_4bit_use_double_quant": True}}
    plain, one, two = (predict_memory(settings_of("8gb"), config).card_gib for config in (CONFIG, single, double))
    assert plain == two
    assert one - plain == pytest.approx(6.525e9 * (0.5625 - 0.516) / GIB, rel=0.01)


@pytest.mark.parametrize(
    ("size", "max_pixels", "tokens"),
    [
        ((1920, 1080), 1003520, 1222),
        ((1920, 1080), 602112, 720),
        ((1920, 1080), 401408, 480),
        ((1920, 1080), 200704, 252),
        ((1920, 1080), 100352, 120),
        ((640, 360), 100352, 120),
        ((100, 60), 401408, 8),
    ],
)
def test_visual_tokens_of_a_frame(size: tuple[int, int], max_pixels: int, tokens: int) -> None:
    assert visual_tokens(*size, max_pixels) == tokens


NEEDED = MemoryNeed(card={"weights": 3 * GIB, "rest": 1 * GIB}, host={"embedding": 2 * GIB})


@pytest.mark.parametrize(
    ("card_gib", "host_gib", "said"),
    [
        (4 * RESERVED, 2 + PROCESS_BYTES / GIB, []),
        (4.1, 64, ["the card has 4.1 GiB free, and about 4.2 are needed"]),
        (64, 5, ["host memory has 5.0 GiB free, and about 6.0 are needed"]),
        (1, 1, ["the card has 1.0 GiB free, and about 4.2", "host memory has 1.0 GiB free, and about 6.0"]),
    ],
)
def test_what_is_short_is_named_with_both_figures(card_gib: float, host_gib: float, said: list[str]) -> None:
    found = shortages(NEEDED, card_bytes=card_gib * GIB, host_bytes=host_gib * GIB)
    assert len(found) == len(said)
    assert all(text.startswith(beginning) for text, beginning in zip(found, said, strict=True))
