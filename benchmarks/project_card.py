"""Project seconds a training frame, or an answer, onto a card that wasn't at hand, by roofline: nothing is measured.

    python benchmarks/project_card.py --like Qwen/Qwen2-VL-7B-Instruct --recipe 8gb

The default card is the desktop's NVIDIA RTX A1000. Arithmetic takes its operations over the card's peak; unpacking the
4-bit weights moves their bytes through the card's memory once a pass; the LM head comes over the bus once, and layers
that lie on the host once forward and once backward. The floor lets all overlap. The other figure adds arithmetic, at
the share of peak that was measured on an H100, memory and the head up, and lets layers come meanwhile.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.made.drawn_frames import HEIGHT, MAX_PIXELS, WIDTH
from benchmarks.made.random_qwen2vl import companion_folder
from benchmarks.measuring.recipe_arguments import FIXED, fixed_settings
from data_prep.console import run_script
from recipes.layers.sizes import linear_shapes, packed_bytes_a_weight, visual_tokens
from recipes.machine.cards import ASSUMED, CARDS, Card
from recipes.machine.memory import TEXT_TOKENS, is_packed, predict_memory, recomputed_layers_of
from recipes.machine.operations import language_flops, vision_flops
from recipes.machine.training_time import PATCHES_A_TOKEN, head_bytes, streamed_bytes

MEASURED_SHARE = 0.68  # of a large matrix product's rate, the 80 GB recipe on an H100 (benchmarks/README.md)
UNPACKED_ON_THE_WAY = packed_bytes_a_weight() + 2 + 2  # bytes a 4-bit weight moves at each use: read, write, read


@dataclass(frozen=True)
class Seconds:
    """What a frame takes of a card by part: arithmetic, unpacking, the LM head's way over the bus, and layers' way."""

    arithmetic: float
    memory: float
    head: float
    layers: float

    @property
    def floor(self) -> float:
        """The seconds where all parts overlap, and arithmetic runs at the card's peak."""
        return max(self.arithmetic, self.memory, self.head + self.layers)

    @property
    def expected(self) -> float:
        """The seconds where layers come while others compute, and the rest is done one after another."""
        return max(self.arithmetic / MEASURED_SHARE + self.memory, self.layers) + self.head


def main(argv: list[str]) -> int:
    """Print the projection for one to eight frames on the card."""
    args = parse_arguments(argv)
    config = json.loads((companion_folder(args.like) / "config.json").read_text(encoding="utf-8"))
    settings = fixed_settings(args.recipe)
    card = card_of(args)
    print(
        f"projection, not measured: {card.flops / 1e12:g} TFLOP/s, {card.memory / 1e9:g} GB/s, {card.bus / 1e9:g} GB/s "
        "to the card",
        file=sys.stderr,
    )
    print(f"{'frames on the card':>18}{'GiB':>8}{'floor, s/frame':>16}{'expected, s/frame':>19}")
    for frames in (1, 2, 4, 8):
        changed = {**settings, "per_device_train_batch_size": frames}
        seconds = seconds_a_frame(changed, config, card)
        card_gib = predict_memory(changed, config, width=WIDTH, height=HEIGHT).card_gib
        print(f"{frames:>18}{card_gib:>8.2f}{seconds.floor:>16.2f}{seconds.expected:>19.2f}")
    for max_pixels in MAX_PIXELS.values():
        arithmetic, memory = seconds_an_answer(max_pixels, config, card)
        print(
            f"one frame answered, {visual_tokens(WIDTH, HEIGHT, max_pixels)} visual tokens: floor "
            f"{max(arithmetic, memory):.2f} s, expected {arithmetic / MEASURED_SHARE + memory:.2f} s"
        )
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", default="Qwen/Qwen2-VL-7B-Instruct", help="a Hub id or a folder with config.json")
    parser.add_argument("--recipe", choices=FIXED, default="8gb", help="one of the fixed ones (default: %(default)s)")
    parser.add_argument("--card", choices=sorted(CARDS), default=ASSUMED, help="a known one (default: %(default)s)")
    parser.add_argument("--tflops", type=float, help="dense bf16 peak, in the place of the card's")
    parser.add_argument("--memory-gb-per-second", type=float, help="in the place of the card's")
    parser.add_argument("--bus-gb-per-second", type=float, help="host to card, in the place of the card's")
    return parser.parse_args(argv)


def card_of(args: argparse.Namespace) -> Card:
    """Return the known card that is named, with the rates that are given in the place of its own."""
    given = {
        "flops": args.tflops and args.tflops * 1e12,
        "memory": args.memory_gb_per_second and args.memory_gb_per_second * 1e9,
        "bus": args.bus_gb_per_second and args.bus_gb_per_second * 1e9,
    }
    return replace(CARDS[args.card], **{name: rate for name, rate in given.items() if rate})


def seconds_a_frame(settings: Mapping[str, Any], config: dict[str, Any], card: Card) -> Seconds:
    """Return what a training frame takes of a card by part; what is done once a micro-batch is shared by its frames."""
    text, frames = config.get("text_config", config), settings["per_device_train_batch_size"]
    tokens = visual_tokens(WIDTH, HEIGHT, settings["max_pixels"])
    passes = 2 + recomputed_layers_of(settings, text) / text["num_hidden_layers"]
    operations = passes * language_flops(text, tokens + TEXT_TOKENS)
    if not settings["cache_vision_features"]:
        operations += vision_flops(config["vision_config"], PATCHES_A_TOKEN * tokens, text["hidden_size"])
    moved = passes * quantized_weights(text) * (UNPACKED_ON_THE_WAY if is_packed(settings) else 2)
    head, streamed = head_bytes(settings, config), streamed_bytes(settings, config)
    return Seconds(
        operations / card.flops, moved / card.memory / frames, head / card.bus / frames, streamed / card.bus / frames
    )


def seconds_an_answer(max_pixels: int, config: dict[str, Any], card: Card) -> tuple[float, float]:
    """Return the seconds of the arithmetic for one frame's answer, and of unpacking the 4-bit weights for it."""
    text = config.get("text_config", config)
    tokens = visual_tokens(WIDTH, HEIGHT, max_pixels)
    operations = language_flops(text, tokens + TEXT_TOKENS)
    operations += vision_flops(config["vision_config"], PATCHES_A_TOKEN * tokens, text["hidden_size"])
    return operations / card.flops, quantized_weights(text) * UNPACKED_ON_THE_WAY / card.memory


def quantized_weights(text: dict[str, Any]) -> int:
    """Return how many weights of the language model are in 4 bits."""
    weights: int = text["num_hidden_layers"] * sum(out * into for out, into in linear_shapes(text).values())
    return weights


if __name__ == "__main__":
    run_script(main)
