"""What answering takes of card and host, predicted, and what of a base passes through a card that is small. No torch.

Embedding and LM head lie on the host, and the adapter on the card in fp32, as recipes/answering has them on a GPU.
"""

from collections.abc import Mapping
from typing import Any

from data_prep.disk.byte_counts import GIB
from recipes.layers.sizes import layers_of, linear_shapes, text_config, vision_blocks_of, visual_tokens
from recipes.machine.memory import (
    RESERVED,
    TEXT_TOKENS,
    TOWER,
    WORKING_HIDDEN,
    WORKING_INNER,
    WORKSPACE_BYTES,
    MemoryNeed,
    tower_working,
)
from recipes.machine.placed_weights import (
    SLOTS,
    adapter_weights,
    element_bytes,
    placed_layers,
    placed_tables,
    placed_tower,
)


def predict_answering(
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    frames: int = 1,
    layers_on_host: int = 0,
    vision_blocks_on_host: int = 0,
    width: int = 1920,
    height: int = 1080,
) -> MemoryNeed:
    """Predict what answering `frames` of one size at once needs on a base of that `config`.

    `values` are the adapter's, by the names that settings have: dtype, load_in_4bit, max_pixels, lora_r and
    lora_target_modules.
    """
    element, tokens = element_bytes(values), frames * visual_tokens(width, height, values["max_pixels"])
    layers = placed_layers(config, element=element, in_4_bits=values["load_in_4bit"], on_host=layers_on_host)
    tower = placed_tower(config, element=element, on_host=vision_blocks_on_host)
    tables = placed_tables(config, element=element, embedding_on_host=True, head_on_host=True)
    working = max(
        tower_working(config, tokens, element),
        _language_working(values, text_config(config), tokens + frames * TEXT_TOKENS),
    )
    card = {
        "language model": layers.card,
        TOWER: tower.card,
        "adapter": 4.0 * adapter_weights(values, config),
        "cuBLAS workspace": WORKSPACE_BYTES,
        "forward pass": working,
    }
    host = {name: table.host for name, table in tables.items()}
    return MemoryNeed(card, {"language model": layers.host, TOWER: tower.host, **host})


def _language_working(values: Mapping[str, Any], text: Mapping[str, Any], rows: int) -> float:
    """Return the bytes that a decoder layer's forward pass works with, the largest of its weights unpacked among them.

    Where the adapter is off, as for the base alone, bitsandbytes unpacks a weight whole.
    """
    largest = max(out * into for out, into in linear_shapes(text).values()) if values["load_in_4bit"] else 0
    widths = WORKING_HIDDEN * text["hidden_size"] + WORKING_INNER * text["intermediate_size"]
    return float((rows * widths + largest) * element_bytes(values))


def answering_placement(
    values: Mapping[str, Any], config: Mapping[str, Any], free_bytes: float, frames: int
) -> tuple[int, int]:
    """Return how many decoder layers and how many vision blocks lie on the host, to answer `frames` at once.

    As few as let it fit a card with so many bytes free: decoder layers first, vision blocks once all of those are
    there, and all of both where nothing fits. `values` are predict_answering's. Up to SLOTS of them
    would take what they save.
    """
    layers, blocks = layers_of(config), vision_blocks_of(config)
    ways = [(0, 0)]
    ways += [(count, 0) for count in range(SLOTS + 1, layers + 1)]
    ways += [(layers, count) for count in range(SLOTS + 1, blocks + 1)]
    for on_host in ways:
        need = predict_answering(
            values, config, frames=frames, layers_on_host=on_host[0], vision_blocks_on_host=on_host[1]
        )
        if RESERVED * need.card_gib * GIB <= free_bytes:
            return on_host
    return layers, blocks
