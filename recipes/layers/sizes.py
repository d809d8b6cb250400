"""Qwen2-VL's linears, tables and patches as numbers: shapes, counts and bytes from a config.json. No torch."""

import math
from collections.abc import Mapping
from typing import Any

from data_prep.errors import InputError

# A decoder layer's linears. None of the vision tower's modules bears one of these names.
ATTENTION_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP_LINEARS = ["gate_proj", "up_proj", "down_proj"]
LLM_LINEARS = [*ATTENTION_LINEARS, *MLP_LINEARS]

PATCH_SIDE = 14  # pixels to a side of one patch, of which two by two become a visual token
TOKEN_SIDE = 2 * PATCH_SIDE

BLOCK, NESTED_BLOCK = 64, 256  # weights to an absmax, absmaxes to one of theirs, in bitsandbytes' NF4

# The most of a 4-bit weight that stands unpacked at once: of the 7B's MLP, whose weights take 130 MiB each, a half.
UNPACKED_BYTES = 68 * 2**20


ALL = "all"  # of a base's layers, in the place of their number


def counted(count: str, of: int) -> int:
    """Return how many of a base's layers or blocks a setting names: its number, at most all there are, or ALL."""
    return of if count == ALL else min(int(count), of)


def checked_count(name: str, value: Any) -> str:
    """Return a count of layers as a word: digits, or ALL. Raises InputError for what is neither."""
    word = str(value).strip().lower()
    if word != ALL and not (word.isascii() and word.isdigit()):
        raise InputError(f"{name} {value!r} is neither a whole number nor {ALL!r}")
    return word if word == ALL else str(int(word))


def layers_of(config: Mapping[str, Any]) -> int:
    """Return how many decoder layers a base has."""
    return int(text_config(config)["num_hidden_layers"])


def vision_blocks_of(config: Mapping[str, Any]) -> int:
    """Return how many blocks a base's vision tower has."""
    return int(config["vision_config"]["depth"])


def visual_tokens(width: int, height: int, max_pixels: int) -> int:
    """Return how many visual tokens a frame of that size costs once it is shrunk, as Qwen2-VL's processor counts."""
    rows, columns = round(height / TOKEN_SIDE), round(width / TOKEN_SIDE)
    if rows * columns * TOKEN_SIDE**2 > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        rows, columns = math.floor(height / shrink / TOKEN_SIDE), math.floor(width / shrink / TOKEN_SIDE)
    return max(rows, 1) * max(columns, 1)


def base_weights(config: Mapping[str, Any]) -> float:
    """Return how many weights a base has, norms and biases apart."""
    text = text_config(config)
    linears = text["num_hidden_layers"] * sum(out * into for out, into in linear_shapes(text).values())
    tables = text["vocab_size"] * text["hidden_size"] * (1 if ties_head(config) else 2)
    return linears + tables + vision_weights(config["vision_config"], text["hidden_size"])


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a config.json; as published, it is the whole."""
    part: Mapping[str, Any] = config.get("text_config") or config
    return part


def ties_head(config: Mapping[str, Any]) -> bool:
    """Say whether the LM head shares the token embedding's weights, as the 2B's does."""
    return bool(config.get("tie_word_embeddings") or text_config(config).get("tie_word_embeddings"))


def quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how a base's weights were quantized before they were published, None where they weren't."""
    settings: Mapping[str, Any] | None = config.get("quantization_config")
    return settings or text_config(config).get("quantization_config") or None


def linear_shapes(text: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the (out, in) shape of each linear of a decoder layer."""
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    keys = hidden * text["num_key_value_heads"] // text["num_attention_heads"]
    return {
        "q_proj": (hidden, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, hidden),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }


def packed_bytes_a_weight(*, nested: bool = True) -> float:
    """Return what one weight takes in 4 bits, in bytes: 0.516 with double (`nested`) quantisation, 0.5625 without."""
    return 0.5 + (1 / BLOCK + 4 / (BLOCK * NESTED_BLOCK) if nested else 4 / BLOCK)


def vision_weights(vision: Mapping[str, Any], hidden: int) -> float:
    """Return how many weights the vision tower has."""
    width = vision["embed_dim"]
    block = 4 * width * width + 2 * width * int(width * vision["mlp_ratio"])
    merged = 4 * width
    return vision["depth"] * block + merged * merged + merged * hidden + width * 3 * 2 * PATCH_SIDE**2
