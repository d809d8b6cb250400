"""What stands as a number is what Qwen2-VL's own files and modules say."""

import json
from pathlib import Path

from data_prep.media.frame_format import MIN_SIDE
from recipes.layers.sizes import (
    ATTENTION_LINEARS,
    LLM_LINEARS,
    MLP_LINEARS,
    PATCH_SIDE,
    TOKEN_SIDE,
    linear_shapes,
    text_config,
)
from recipes.model.loading import load_processor


def test_sides_of_patches_and_tokens_are_the_processor_s(small_base: Path) -> None:
    """And extraction, which imports nothing of the model, leaves no frame smaller than a token."""
    images = load_processor(small_base).image_processor
    assert (images.patch_size, images.patch_size * images.merge_size) == (PATCH_SIDE, TOKEN_SIDE)
    assert MIN_SIDE == TOKEN_SIDE


def test_linears_are_a_decoder_layer_s(small_base: Path) -> None:
    config = json.loads((small_base / "config.json").read_text())
    assert list(linear_shapes(text_config(config))) == LLM_LINEARS == ATTENTION_LINEARS + MLP_LINEARS
