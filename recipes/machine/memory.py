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
    counted,
    layers_of,
    linear_shapes,
    text_config,
    vision_blocks_of,
    visual_tokens,
)
from recipes.machine.placed_weights import (
    Placed,
    adapter_weights,
    element_bytes,
    placed_layers,
    placed_tables,
    placed_tower,
)

TOWER = "vision tower"

TEXT_TOKENS = 50  # around the visual ones: the chat's frame, the project's prompt, the longest answer

# Rows kept a token and layer that isn't recomputed, of the hidden size by whether layers are compiled; rows that a
# layer's recomputation and backward pass work with; and rows that the first backward pass of a layer that kept its
# activations works with beside these: the product that the MLP hasn't kept, and later that product's gradient.
KEPT_HIDDEN, KEPT_INNER = {False: 6.3, True: 12}, 2
WORKING_HIDDEN, WORKING_INNER = 7, 3
BESIDE_KEPT_INNER = 1

# Of the gradients that go to the host after each micro-batch, the part that stands at the peak: they come a layer at a
# time, as what the forward pass kept goes.
GRADIENTS_AT_PEAK = 0.5

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
    """A prediction, in bytes by part: `card` and `host` while it trains, `validating` and `filling` of the card alone.

    `disk_bytes_a_frame` is what kept vision features take; they are computed first, which is the `filling`.
    """

    card: dict[str, float]
    host: dict[str, float]
    disk_bytes_a_frame: float = 0.0
    filling: dict[str, float] = field(default_factory=dict)
    validating: dict[str, float] = field(default_factory=dict)

    @property
    def card_gib(self) -> float:
        """The most that a run allocates on the card, in GiB; the CUDA context comes on top."""
        return max(self.training_gib, *(sum(parts.values()) / GIB for parts in (self.filling, self.validating)))

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
    base, keeps_features = _base(settings, config), settings["cache_vision_features"]
    element, on_host = element_bytes(settings), settings["optimizer_on_host"]
    adapter = adapter_weights(settings, config)
    lying = {
        **{name: placed.card for name, placed in base.items() if not (keeps_features and name == TOWER)},
        "optimizer": 0.0 if on_host else float(adapter * MOMENT_BYTES["8bit" in settings["optim"]]),
        "cuBLAS workspace": WORKSPACE_BYTES,
        **_unpacked(settings, text),
    }
    a_weight = element if on_host else 4
    gradients = adapter * a_weight * (GRADIENTS_AT_PEAK if on_host else 1.0)
    card = {
        **lying,
        "adapter and gradients": adapter * a_weight + gradients,
        **_activations(settings, text, settings["per_device_train_batch_size"] * (tokens + TEXT_TOKENS)),
    }
    host = {
        **{name: placed.host for name, placed in base.items()},  # the tower's, too: what was page-locked stays so
        "optimizer": float(HOST_OPTIMIZER_BYTES * adapter) if on_host else 0.0,
    }
    frames = settings["per_device_eval_batch_size"]
    forward = layer_working(text, frames * (tokens + TEXT_TOKENS), element)
    seeing = tower_working(config, frames * tokens, element)
    working = forward if keeps_features else max(forward, seeing)
    validating = {**lying, "adapter": float(adapter * a_weight), "forward pass": working}
    if settings["cuda_graphs"]:  # a graph holds on to what it works with; another may be run beside it
        held = card["kept activations"] + card["one layer's backward pass"]
        validating["held by the graph"] = held + gradients
        card["held by the graph"] = held if settings["per_device_train_batch_size"] > 1 else 0.0
    if not keeps_features:
        return MemoryNeed(card, host, validating=validating)
    filling = {TOWER: base[TOWER].card, "one block's forward pass": seeing}
    return MemoryNeed(card, host, tokens * text["hidden_size"] * element, filling, validating)


def layer_working(text: Mapping[str, Any], rows: int, element: int) -> float:
    """Return the bytes that a decoder layer's pass works with for so many tokens, beside its weights."""
    return float(rows * (WORKING_HIDDEN * text["hidden_size"] + WORKING_INNER * text["intermediate_size"]) * element)


def _base(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Placed]:
    """Return the bytes of the base's parts, on card and host."""
    element = element_bytes(settings)
    layers = counted(settings["layers_on_host"], layers_of(config))
    blocks = counted(settings["vision_blocks_on_host"], vision_blocks_of(config))
    tables = {f"{name}_on_host": settings[f"{name}_on_host"] for name in ("embedding", "head")}
    return {
        "language model": placed_layers(config, element=element, in_4_bits=is_packed(settings), on_host=layers),
        TOWER: placed_tower(config, element=element, on_host=blocks),
        **placed_tables(config, element=element, **tables),
    }


def is_packed(settings: Mapping[str, Any]) -> bool:
    """Say whether the decoder layers' weights are in 4 bits when they are used."""
    return bool(settings["load_in_4bit"] and not settings["unpack_base"])


def tower_working(config: Mapping[str, Any], tokens: int, element: int) -> float:
    """Return the bytes that the vision tower's forward pass works with, for so many visual tokens at once."""
    return float(4 * tokens * FILLING_WIDTHS * config["vision_config"]["embed_dim"] * element)


def _activations(settings: Mapping[str, Any], text: Mapping[str, Any], rows: int) -> dict[str, float]:
    """Return the bytes of what is kept for the backward pass, and of what a layer's backward pass adds to its peak.

    The first layers are recomputed, last in the backward pass: what the others kept is gone by then.
    """
    hidden, inner, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    recomputed = recomputed_layers_of(settings, text)
    whole = max(layers - 1 - recomputed, 0)  # the last layer computes the answers' positions alone
    kept = whole * (KEPT_HIDDEN[bool(settings["compile_layers"])] * hidden + KEPT_INNER * inner)
    working = WORKING_HIDDEN * hidden + WORKING_INNER * inner if recomputed else 0
    beside = BESIDE_KEPT_INNER * inner if whole else 0
    bytes_a_column = rows * element_bytes(settings)
    return {
        "kept activations": float(bytes_a_column * (recomputed * hidden + kept)),
        "one layer's backward pass": float(bytes_a_column * max(working - kept, beside)),
    }


def recomputed_layers_of(settings: Mapping[str, Any], text: Mapping[str, Any]) -> int:
    """Return how many decoder layers go forward once more in the backward pass."""
    if not settings["activation_checkpointing"]:
        return 0
    return counted(settings["recomputed_layers"], text["num_hidden_layers"])


def _unpacked(settings: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, float]:
    """Return the bytes of the 4-bit weight that stands unpacked while it is used; nothing where none is packed."""
    if not is_packed(settings):
        return {}
    largest = max(out * into for out, into in linear_shapes(text).values()) * element_bytes(settings)
    return {"unpacked weight": float(min(UNPACKED_BYTES, largest))}


def shortages(need: MemoryNeed, *, card_bytes: float, host_bytes: float, spare_bytes: float = 0.0) -> list[str]:
    """Say in words what of a prediction exceeds the free memory of card and host, given in bytes; [] where all fits.

    `spare_bytes` of the card are to be left.
    """
    card, host = RESERVED * need.card_gib * GIB + spare_bytes, need.host_gib * GIB + PROCESS_BYTES
    return [
        f"{where} has {free / GIB:.1f} GiB free, and about {needed / GIB:.1f} are needed"
        for where, free, needed in (("the card", card_bytes, card), ("host memory", host_bytes, host))
        if needed > free
    ]
