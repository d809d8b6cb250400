"""The bytes of a run's weights by where they lie: on the card, or on the host and through the card a layer at a time.

Norms and biases aren't counted. No torch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from recipes.layers.sizes import (
    linear_shapes,
    packed_bytes_a_weight,
    quantization,
    text_config,
    ties_head,
    vision_weights,
)

SLOTS = 2  # on the card, of a layer each: one is computed with while the next one's weights arrive


class Placed(NamedTuple):
    """Bytes on the card, and on the host."""

    card: float
    host: float


def element_bytes(settings: Mapping[str, Any]) -> int:
    """Return the bytes of a number in the precision that is computed in."""
    return 4 if settings["dtype"] == "float32" else 2


def layers_on_card(number: int, on_host: int) -> int:
    """Return how many layers' room the card has where `on_host` of `number` layers pass through it."""
    return number - on_host + (SLOTS if on_host else 0)


def placed_layers(config: Mapping[str, Any], *, element: int, in_4_bits: bool, on_host: int) -> Placed:
    """Return the bytes of all decoder layers' linears, in 4 bits or in numbers of `element` bytes."""
    text, ready = text_config(config), quantization(config)
    weights = sum(out * into for out, into in linear_shapes(text).values())
    # What is packed here is packed with double quantisation.
    nested = ready is None or bool(ready.get("bnb_4bit_use_double_quant"))
    each = packed_bytes_a_weight(nested=nested) if in_4_bits else element
    card = layers_on_card(text["num_hidden_layers"], on_host) * weights * each
    return Placed(float(card), float(on_host * weights * each))


def placed_tower(config: Mapping[str, Any], *, element: int, on_host: int) -> Placed:
    """Return the bytes of the vision tower's weights, `on_host` of whose blocks pass through the card."""
    vision, hidden = config["vision_config"], text_config(config)["hidden_size"]
    beside = vision_weights({**vision, "depth": 0}, hidden)
    block = vision_weights({**vision, "depth": 1}, hidden) - beside
    card = beside + layers_on_card(vision["depth"], on_host) * block
    return Placed(card * element, on_host * block * element)


def placed_tables(
    config: Mapping[str, Any], *, element: int, embedding_on_host: bool, head_on_host: bool
) -> dict[str, Placed]:
    """Return the bytes of embedding and LM head: of both in one place once if tied."""
    text = text_config(config)
    table = float(text["vocab_size"] * text["hidden_size"] * element)
    shared = ties_head(config) and embedding_on_host == head_on_host
    embedding = Placed(0.0, table) if embedding_on_host else Placed(table, 0.0)
    head = Placed(0.0, table) if head_on_host else Placed(table, 0.0)
    return {"embedding": embedding, "LM head": Placed(0.0, 0.0) if shared else head}


def adapter_weights(settings: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Return how many weights the adapter of a YAML's `settings` has."""
    text = text_config(config)
    shapes = linear_shapes(text)
    widths = sum(sum(shapes[name]) for name in settings["lora_target_modules"])
    return int(text["num_hidden_layers"] * settings["lora_r"] * widths)
