"""How long training takes, predicted from a run's settings, its base's config.json and a card's rates. No torch.

Operations and bytes are counted. What they cost beside a large product's rate and a large copy's was fitted to an H100,
whole and cut down to 8 of its multiprocessors (benchmarks/README.md), to which
tests/recipes/machine/test_training_time.py holds the prediction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipes.layers.sizes import (
    counted,
    layers_of,
    linear_shapes,
    text_config,
    vision_blocks_of,
    visual_tokens,
)
from recipes.machine.cards import Card
from recipes.machine.memory import TEXT_TOKENS, is_packed, recomputed_layers_of
from recipes.machine.operations import language_flops, vision_flops
from recipes.machine.placed_weights import adapter_weights, element_bytes, placed_layers, placed_tower

PATCHES_A_TOKEN = 4

# Bytes that a 4-bit weight moves through the card's memory at each pass: 4.5 are read, written and read again; more is
# as if moved, since bitsandbytes' kernel and products of few rows are bound by more than the memory.
UNPACKING_BYTES = 4.6

# What a layer's forward pass, or its backward one, does a token beside its products (norms, activations, adapters,
# attention's softmax), as if so many times the hidden and the inner size moved; by whether layers are compiled.
BESIDE_WIDTHS = {False: 31, True: 19.5}
TOWER_SHARE = {False: 0.46, True: 0.62}  # of a large product's rate, the vision tower's forward pass

# A layer's kernels take the processor so long to launch, a pass; a CUDA graph has them launched at once.
LAUNCH_SECONDS = {False: 5e-3, True: 1.8e-3}
HOST_UPDATE_SECONDS = 1.2e-9  # a weight of the adapter, AdamW on the host
COMPILE_SECONDS = 60.0
KEEPING_SECONDS = 0.01  # a frame's vision features, 3.4 MB for the 7B, written to a disk


@dataclass(frozen=True)
class TrainingTime:
    """A prediction, in seconds: of a training frame, of computing a frame's kept vision features, of what comes once.

    `frame` is an update's time by its frames.
    """

    frame: float
    filling: float
    once: float

    def run(self, frames: int, epochs: float, kept: int = 0) -> float:
        """Return the seconds of training on so many frames in so many epochs; features of `kept` are there already."""
        return self.once + max(0, frames - kept) * self.filling + frames * epochs * self.frame


def predict_time(
    settings: Mapping[str, Any], config: Mapping[str, Any], card: Card, *, width: int = 1920, height: int = 1080
) -> TrainingTime:
    """Predict how long training with a YAML's `settings` takes on a base of that `config`, for frames of one size."""
    tokens = visual_tokens(width, height, settings["max_pixels"])
    frames, accumulation = settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]
    update = accumulation * _micro_batch(settings, config, card, tokens) + _optimizer(settings, config)
    tower = _tower({**settings, "compile_layers": False}, config, card, tokens)  # to keep features it is as it comes
    return TrainingTime(
        frame=update / (frames * accumulation),
        filling=tower + KEEPING_SECONDS if settings["cache_vision_features"] else 0.0,
        once=COMPILE_SECONDS if settings["compile_layers"] else 0.0,
    )


def _micro_batch(settings: Mapping[str, Any], config: Mapping[str, Any], card: Card, tokens: int) -> float:
    """Return the seconds of a micro-batch's forward and backward pass.

    What streams comes while others compute; the LM head's weights and an adapter's gradients come and go beside that.
    """
    text, frames = text_config(config), settings["per_device_train_batch_size"]
    layers, compiled = layers_of(config), bool(settings["compile_layers"])
    passes = 2 + recomputed_layers_of(settings, text) / layers
    length, element = tokens + TEXT_TOKENS, element_bytes(settings)
    widths = BESIDE_WIDTHS[compiled] * (text["hidden_size"] + text["intermediate_size"]) * element
    weights = layers * sum(out * into for out, into in linear_shapes(text).values())
    computing = passes * (
        frames * language_flops(text, length) / card.flops
        + frames * length * layers * widths / card.memory
        + weights * (UNPACKING_BYTES if is_packed(settings) else element) / card.memory
    )
    if not settings["cache_vision_features"]:
        computing += frames * _tower(settings, config, card, tokens)
    launching = 0.0 if settings["cuda_graphs"] else passes * layers * LAUNCH_SECONDS[compiled]
    beside = head_bytes(settings, config)
    if settings["optimizer_on_host"]:
        beside += element * adapter_weights(settings, config)
    return max(max(computing, streamed_bytes(settings, config) / card.bus) + beside / card.bus, launching)


def _tower(settings: Mapping[str, Any], config: Mapping[str, Any], card: Card, tokens: int) -> float:
    """Return the seconds of a frame's way through the vision tower."""
    hidden = text_config(config)["hidden_size"]
    operations = vision_flops(config["vision_config"], PATCHES_A_TOKEN * tokens, hidden)
    return operations / (TOWER_SHARE[bool(settings["compile_layers"])] * card.flops)


def streamed_bytes(settings: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """Return what a micro-batch has come over the bus of layers and vision blocks that lie on the host.

    A decoder layer comes forward and backward, where it is recomputed as well; a block of the frozen tower once.
    """
    element, layers = element_bytes(settings), counted(settings["layers_on_host"], layers_of(config))
    total = 2 * placed_layers(config, element=element, in_4_bits=is_packed(settings), on_host=layers).host
    if not settings["cache_vision_features"]:
        blocks = counted(settings["vision_blocks_on_host"], vision_blocks_of(config))
        total += placed_tower(config, element=element, on_host=blocks).host
    return total


def head_bytes(settings: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """Return what a micro-batch has come over the bus of the LM head, once, forward and backward."""
    if not settings["head_on_host"]:
        return 0.0
    text = text_config(config)
    return float(text["vocab_size"] * text["hidden_size"] * element_bytes(settings))


def _optimizer(settings: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    return HOST_UPDATE_SECONDS * adapter_weights(settings, config) if settings["optimizer_on_host"] else 0.0
