"""What answering takes of card and host, predicted, and what of a base passes through a card that is small. No torch.

Embedding and LM head lie on the host, and the adapter on the card in fp32, as recipes/answering has them on a GPU.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from data_prep.disk.byte_counts import GIB
from recipes.layers.sizes import (
    UNPACKED_BYTES,
    layers_of,
    linear_shapes,
    text_config,
    vision_blocks_of,
    visual_tokens,
)
from recipes.machine.memory import (
    RESERVED,
    TEXT_TOKENS,
    TOWER,
    WORKSPACE_BYTES,
    MemoryNeed,
    layer_working,
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

# Batches leave so much of what torch's allocator holds in pieces too small for the next one: 0.27 GiB when 4 frames at
# once, with the adapter and without, ran out of a cap of 1.6 GiB. A single frame stayed within RESERVED.
PIECES_BYTES = 0.3 * GIB


def predict_answering(
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    frames: int = 1,
    layers_on_host: int = 0,
    vision_blocks_on_host: int = 0,
    base_alone: bool = True,
    width: int = 1920,
    height: int = 1080,
) -> MemoryNeed:
    """Predict what answering `frames` of one size at once needs on a base of that `config`.

    `values` are the adapter's, by the names that settings have: dtype, load_in_4bit, max_pixels, lora_r and
    lora_target_modules. With `base_alone` that includes answers without the adapter, as a report compares with.
    """
    element, tokens = element_bytes(values), frames * visual_tokens(width, height, values["max_pixels"])
    layers = placed_layers(config, element=element, in_4_bits=values["load_in_4bit"], on_host=layers_on_host)
    tower = placed_tower(config, element=element, on_host=vision_blocks_on_host)
    tables = placed_tables(config, element=element, embedding_on_host=True, head_on_host=True)
    working = max(
        tower_working(config, tokens, element),
        _language_working(values, text_config(config), tokens + frames * TEXT_TOKENS, base_alone=base_alone),
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


def _language_working(values: Mapping[str, Any], text: Mapping[str, Any], rows: int, *, base_alone: bool) -> float:
    """Return the bytes that a decoder layer's forward pass works with, the largest of its weights unpacked among them.

    Where the adapter is off, as for the base alone, bitsandbytes unpacks a weight whole.
    """
    largest = max(out * into for out, into in linear_shapes(text).values()) * element_bytes(values)
    unpacked = largest if base_alone else min(UNPACKED_BYTES, largest)
    return layer_working(text, rows, element_bytes(values)) + (unpacked if values["load_in_4bit"] else 0)


class AnsweringPlan(NamedTuple):
    """How many frames are answered at once, and how many decoder layers and vision blocks lie on the host meanwhile."""

    frames: int
    layers_on_host: int
    vision_blocks_on_host: int


def plan_answering(
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    free_bytes: float,
    frames: int,
    *,
    layers: int | None = None,
    vision_blocks: int | None = None,
) -> AnsweringPlan:
    """Plan to answer up to `frames` at once on a card with so many bytes free.

    As many at once as can fit, and as little on the host as lets them: decoder layers first, vision blocks once all of
    those are there. `layers` and `vision_blocks`, where given, are how many lie there. Where nothing fits, one frame at
    a time with all on the host that may be. `values` are predict_answering's.
    """
    layer_counts, block_counts = _counts(layers_of(config), layers), _counts(vision_blocks_of(config), vision_blocks)
    ways = [(count, block_counts[0]) for count in layer_counts]
    ways += [(layer_counts[-1], count) for count in block_counts[1:]]
    for at_once in range(frames, 0, -1):
        for way in ways:
            need = predict_answering(
                values, config, frames=at_once, layers_on_host=way[0], vision_blocks_on_host=way[1]
            )
            pieces = PIECES_BYTES if at_once > 1 else 0
            if RESERVED * need.card_gib * GIB + pieces <= free_bytes:
                return AnsweringPlan(at_once, *way)
    return AnsweringPlan(1, *ways[-1])


def _counts(number: int, named: int | None) -> list[int]:
    """Return how many of `number` may lie on the host: what is named, or any that saves room, the fewest first.

    Up to SLOTS of them would take what they save; all may, however few there are.
    """
    return sorted({0, *range(SLOTS + 1, number), number}) if named is None else [named]
