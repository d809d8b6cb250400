"""What a run needs of card, host and disk, predicted from its settings and its base's config.json. No torch.

Weights, adapter, gradients and moments are counted. What is kept of a forward pass and what a layer's backward pass
works with are counted in rows of the hidden and the inner size; how many of each was fitted to measured peaks of the
7B (benchmarks/README.md), which tests/recipes/machine/test_memory.py holds the prediction to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recipes.layers.sizes import (
    UNPACKED_BYTES,
    linear_shapes,
    packed_bytes_a_weight,
    quantization,
    text_config,
    ties_head,
    vision_weights,
    visual_tokens,
)

GIB = 2**30


TEXT_TOKENS = 50  # around the visual ones: the chat's frame, the project's prompt, the longest answer

# Rows kept a token and layer without checkpointing, and rows a layer's recomputation and backward pass work with.
KEPT_HIDDEN, KEPT_INNER = 12, 2
WORKING_HIDDEN, WORKING_INNER = 7, 3

# What the vision tower's forward pass works with a patch, in its width: 18.8 by a measured peak of the 2B. Only a base
# as small as that takes more here than to train.
FILLING_WIDTHS = 19

# torch sets this aside for cuBLAS, for the forward and the backward thread each; 32 MiB each from Hopper on.
WORKSPACE_BYTES = 2 * 8 * 2**20


@dataclass(frozen=True)
class MemoryNeed:
    """A prediction, in bytes by part: `card` and `host` while it trains, `filling` of the card before that.

    `disk_bytes_a_frame` is what kept vision features take; they are computed first.
    """

    card: dict[str, float]
    host: dict[str, float]
    disk_bytes_a_frame: float
    filling: dict[str, float] = field(default_factory=dict)

    @property
    def card_gib(self) -> float:
        """The most that a run allocates on the card, in GiB; the CUDA context comes on top."""
        return max(self.training_gib, sum(self.filling.values()) / GIB)

    @property
    def training_gib(self) -> float:
        """The most that it allocates there once it trains."""
        return sum(self.card.values()) / GIB

    @property
    def host_gib(self) -> float:
        """What is held in host memory for the card's sake, in GiB; Python, libraries and workers come on top."""
        return sum(self.host.values()) / GIB


def predict_memory(
    settings: Mapping[str, Any], config: Mapping[str, Any], *, width: int = 1920, height: int = 1080
) -> MemoryNeed:
    """Predict what training with a YAML's `settings` needs on a base of that `config`, for frames of one size."""
    text, vision = text_config(config), config["vision_config"]
    hidden, inner, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    two_bytes = 4 if settings["dtype"] == "float32" else 2
    tokens = visual_tokens(width, height, settings["max_pixels"])
    rows = settings["per_device_train_batch_size"] * (tokens + TEXT_TOKENS)
    shapes = linear_shapes(text)
    linears = layers * sum(out * into for out, into in shapes.values())
    adapter = adapter_weights(settings, config)
    unpacked = settings["unpack_base"] or not settings["load_in_4bit"]
    ready = quantization(config)  # what is packed here is packed with double quantisation
    packed = packed_bytes_a_weight(nested=ready is None or bool(ready.get("bnb_4bit_use_double_quant")))

    on_host, moments = settings["optimizer_on_host"], 8.0 if "8bit" not in settings["optim"] else 2.0
    adapter_bytes = adapter * (two_bytes if on_host else 4)
    card: dict[str, float] = {
        "language model": linears * (two_bytes if unpacked else packed),
        "vision tower": 0.0 if settings["cache_vision_features"] else vision_weights(vision, hidden) * two_bytes,
        **_tables(settings, config, two_bytes, on_host=False),
        "adapter and gradients": 2.0 * adapter_bytes,
        "optimizer": 0.0 if on_host else adapter * moments,
        "cuBLAS workspace": WORKSPACE_BYTES,
        **_activations(settings, rows=rows, hidden=hidden, inner=inner, layers=layers, element=two_bytes),
    }
    if not unpacked:
        largest = max(out * into for out, into in shapes.values()) * two_bytes
        card["unpacked weight"] = min(UNPACKED_BYTES, largest)
    host = {
        **_tables(settings, config, two_bytes, on_host=True),
        "optimizer": 16.0 * adapter if on_host else 0.0,  # fp32 weights, gradients and two moments
    }
    if not settings["cache_vision_features"]:
        return MemoryNeed(card, host, 0.0)
    patches = 4 * tokens * settings["per_device_eval_batch_size"]
    filling = {
        "vision tower": vision_weights(vision, hidden) * two_bytes,
        "one block's forward pass": float(patches * FILLING_WIDTHS * vision["embed_dim"] * two_bytes),
    }
    return MemoryNeed(card, host, tokens * hidden * two_bytes, filling)


def _tables(settings: Mapping[str, Any], config: Mapping[str, Any], element: int, *, on_host: bool) -> dict[str, float]:
    """Return the bytes of embedding and LM head on the host, or on the card: of both in one place once if tied."""
    text = text_config(config)
    table = float(text["vocab_size"] * text["hidden_size"] * element)
    here = {name: settings[f"{name}_on_host"] == on_host for name in ("embedding", "head")}
    own_head = here["head"] and not (ties_head(config) and here["embedding"])
    return {"embedding": table if here["embedding"] else 0.0, "LM head": table if own_head else 0.0}


def _activations(
    settings: Mapping[str, Any], *, rows: int, hidden: int, inner: int, layers: int, element: int
) -> dict[str, float]:
    """Return the bytes of what is kept for the backward pass, and of what a layer's backward pass works with."""
    if settings["activation_checkpointing"]:
        kept = layers * hidden
        working = WORKING_HIDDEN * hidden + WORKING_INNER * inner
    else:  # the last layer computes the answers' positions alone
        kept = (layers - 1) * (KEPT_HIDDEN * hidden + KEPT_INNER * inner)
        working = 0
    return {"kept activations": rows * kept * element, "one layer's backward pass": rows * working * element}


def adapter_weights(settings: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Return how many weights the adapter of a YAML's `settings` has."""
    text = text_config(config)
    shapes = linear_shapes(text)
    widths = sum(sum(shapes[name]) for name in settings["lora_target_modules"])
    return int(text["num_hidden_layers"] * settings["lora_r"] * widths)
