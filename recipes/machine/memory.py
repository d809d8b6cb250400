"""What a run needs of card and host, predicted from its settings and its base's config.json. No torch.

Weights, adapter, gradients and moments are counted. What is kept of a forward pass and what a layer's backward pass
works with are counted in rows of the hidden and the inner size; how many of each was fitted to measured peaks of the
7B (benchmarks/README.md), which tests/recipes/machine/test_memory.py holds the prediction to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_prep.disk.byte_counts import GIB
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

TEXT_TOKENS = 50  # around the visual ones: the chat's frame, the project's prompt, the longest answer

# Rows kept a token and layer without checkpointing, and rows a layer's recomputation and backward pass work with.
KEPT_HIDDEN, KEPT_INNER = 12, 2
WORKING_HIDDEN, WORKING_INNER = 7, 3

# What the vision tower's forward pass works with a patch, in its width: 18.8 by a measured peak of the 2B. Only a base
# as small as that takes more here than to train.
FILLING_WIDTHS = 19

# torch sets this aside for cuBLAS, for the forward and the backward thread each; 32 MiB each from Hopper on.
WORKSPACE_BYTES = 2 * 8 * 2**20

RESERVED = 1.04  # times what is allocated: torch's allocator holds so much in the measured runs (benchmarks/README.md)
PROCESS_BYTES = 4 * GIB  # Python, libraries, CUDA's own host memory and the loading processes, about

MOMENT_BYTES = {True: 2, False: 8}  # of a weight's two moments, by whether the optimizer keeps them in 8 bits
HOST_OPTIMIZER_BYTES = 16  # a weight of the adapter: itself, its gradient and its two moments, in fp32


@dataclass(frozen=True)
class MemoryNeed:
    """A prediction, in bytes by part: `card` and `host` while it trains, `filling` of the card before that.

    `disk_bytes_a_frame` is what kept vision features take; they are computed first.
    """

    card: dict[str, float]
    host: dict[str, float]
    disk_bytes_a_frame: float = 0.0
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
    text, tokens = text_config(config), visual_tokens(width, height, settings["max_pixels"])
    rows = settings["per_device_train_batch_size"] * (tokens + TEXT_TOKENS)
    element, tower = _element(settings), _tower(settings, config)
    keeps_features, on_host = settings["cache_vision_features"], settings["optimizer_on_host"]
    adapter = adapter_weights(settings, config)
    card = {
        "language model": _linears(settings, config),
        "vision tower": 0.0 if keeps_features else tower,
        **_tables(settings, config, on_host=False),
        "adapter and gradients": 2.0 * adapter * (element if on_host else 4),
        "optimizer": 0.0 if on_host else float(adapter * MOMENT_BYTES["8bit" in settings["optim"]]),
        "cuBLAS workspace": WORKSPACE_BYTES,
        **_activations(settings, text, rows),
        **_unpacked(settings, text),
    }
    host = {
        **_tables(settings, config, on_host=True),
        "optimizer": float(HOST_OPTIMIZER_BYTES * adapter) if on_host else 0.0,
    }
    if not keeps_features:
        return MemoryNeed(card, host)
    patches = 4 * tokens * settings["per_device_eval_batch_size"]
    block = float(patches * FILLING_WIDTHS * config["vision_config"]["embed_dim"] * element)
    filling = {"vision tower": tower, "one block's forward pass": block}
    return MemoryNeed(card, host, tokens * text["hidden_size"] * element, filling)


def _element(settings: Mapping[str, Any]) -> int:
    """Return the bytes of a number in the precision that is computed in."""
    return 4 if settings["dtype"] == "float32" else 2


def _is_unpacked(settings: Mapping[str, Any]) -> bool:
    return bool(settings["unpack_base"] or not settings["load_in_4bit"])


def _linears(settings: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """Return the bytes of all decoder layers' linears."""
    text, ready = text_config(config), quantization(config)
    weights = text["num_hidden_layers"] * sum(out * into for out, into in linear_shapes(text).values())
    if _is_unpacked(settings):
        return float(weights * _element(settings))
    # What is packed here is packed with double quantisation.
    return weights * packed_bytes_a_weight(nested=ready is None or bool(ready.get("bnb_4bit_use_double_quant")))


def _tower(settings: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """Return the bytes of the vision tower's weights."""
    return vision_weights(config["vision_config"], text_config(config)["hidden_size"]) * _element(settings)


def _tables(settings: Mapping[str, Any], config: Mapping[str, Any], *, on_host: bool) -> dict[str, float]:
    """Return the bytes of embedding and LM head on the host, or on the card: of both in one place once if tied."""
    text = text_config(config)
    table = float(text["vocab_size"] * text["hidden_size"] * _element(settings))
    here = {name: settings[f"{name}_on_host"] == on_host for name in ("embedding", "head")}
    own_head = here["head"] and not (ties_head(config) and here["embedding"])
    return {"embedding": table if here["embedding"] else 0.0, "LM head": table if own_head else 0.0}


def _activations(settings: Mapping[str, Any], text: Mapping[str, Any], rows: int) -> dict[str, float]:
    """Return the bytes of what is kept for the backward pass, and of what a layer's backward pass works with."""
    hidden, inner, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    if settings["activation_checkpointing"]:
        kept = layers * hidden
        working = WORKING_HIDDEN * hidden + WORKING_INNER * inner
    else:  # the last layer computes the answers' positions alone
        kept = (layers - 1) * (KEPT_HIDDEN * hidden + KEPT_INNER * inner)
        working = 0
    element = _element(settings)
    return {"kept activations": rows * kept * element, "one layer's backward pass": rows * working * element}


def _unpacked(settings: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, float]:
    """Return the bytes of the 4-bit weight that stands unpacked while it is used; nothing where none is packed."""
    if _is_unpacked(settings):
        return {}
    largest = max(out * into for out, into in linear_shapes(text).values()) * _element(settings)
    return {"unpacked weight": float(min(UNPACKED_BYTES, largest))}


def adapter_weights(settings: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Return how many weights the adapter of a YAML's `settings` has."""
    text = text_config(config)
    shapes = linear_shapes(text)
    widths = sum(sum(shapes[name]) for name in settings["lora_target_modules"])
    return int(text["num_hidden_layers"] * settings["lora_r"] * widths)


def shortages(need: MemoryNeed, *, card_bytes: float, host_bytes: float) -> list[str]:
    """Say in words what of a prediction exceeds the free memory of card and host, given in bytes; [] where all fits."""
    card, host = RESERVED * need.card_gib * GIB, need.host_gib * GIB + PROCESS_BYTES
    return [
        f"{where} has {free / GIB:.1f} GiB free, and about {needed / GIB:.1f} are needed"
        for where, free, needed in (("the card", card_bytes, card), ("host memory", host_bytes, host))
        if needed > free
    ]
