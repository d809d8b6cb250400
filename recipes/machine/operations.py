"""How many floating-point operations Qwen2-VL's passes take, counted from a config.json; a multiply-add is two."""

from collections.abc import Mapping
from typing import Any


def language_flops(text: Mapping[str, Any], tokens: int) -> float:
    """Return the operations of one forward pass of one sequence through the decoder layers.

    Of the last one only keys and values are computed at every position; the few that answer are left out.
    """
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    keys = hidden * text["num_key_value_heads"] // text["num_attention_heads"]
    linears = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner
    attention = tokens * hidden  # two products over, on average, half the positions
    return float(tokens * 2 * ((text["num_hidden_layers"] - 1) * (linears + attention) + 2 * hidden * keys))


def vision_flops(vision: Mapping[str, Any], patches: int, hidden: int) -> float:
    """Return the operations of one forward pass of one frame through the vision tower."""
    width = vision["embed_dim"]
    block = 4 * width * width + 2 * width * int(width * vision["mlp_ratio"]) + 2 * patches * width
    merged = 4 * width
    merger = (merged * merged + merged * hidden) / 4
    return float(patches * 2 * (vision["depth"] * block + merger))
