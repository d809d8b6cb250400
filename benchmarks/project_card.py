"""Project seconds a training frame, or an answer, onto a card that wasn't at hand, by roofline: nothing is measured.

    python benchmarks/project_card.py --like Qwen/Qwen2-VL-7B-Instruct --recipe recipes/configs/qwen2vl_7b_8gb.yaml

The defaults are an NVIDIA RTX A1000 laptop GPU's. Arithmetic takes its operations over the card's peak; unpacking the
4-bit weights moves their bytes through the card's memory once a pass; the LM head comes over the bus once. The floor
lets the three overlap; the other figure adds them up, arithmetic at the share of peak that was measured on an H100.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from typing import Any

import yaml

from benchmarks.made.drawn_frames import HEIGHT, MAX_PIXELS, WIDTH
from benchmarks.made.random_qwen2vl import companion_folder
from benchmarks.measuring.flops import language_flops, vision_flops
from data_prep.console import run_script
from data_prep.files import from_root
from recipes.layers.sizes import linear_shapes, packed_bytes_a_weight, visual_tokens
from recipes.machine.memory import TEXT_TOKENS, predict_memory

MEASURED_SHARE = 0.68  # of a large matrix product's rate, the 80 GB recipe on an H100 (benchmarks/README.md)
PATCHES_A_TOKEN = 4
UNPACKED_ON_THE_WAY = packed_bytes_a_weight() + 2 + 2  # bytes a 4-bit weight moves at each use: read, write, read


@dataclass(frozen=True)
class Card:
    """What a card does at most: operations, and bytes through its memory and from the host to it, each a second."""

    flops: float
    memory: float
    bus: float


def main(argv: list[str]) -> int:
    """Print the projection for one to eight frames on the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", default="Qwen/Qwen2-VL-7B-Instruct", help="a Hub id or a folder with config.json")
    parser.add_argument("--recipe", default="recipes/configs/qwen2vl_7b_8gb.yaml", help="a YAML (default: %(default)s)")
    parser.add_argument("--tflops", type=float, default=26.9, help="dense bf16 peak (default: %(default)s)")
    parser.add_argument("--memory-gb-per-second", type=float, default=192.0, help="default: %(default)s")
    parser.add_argument("--bus-gb-per-second", type=float, default=12.0, help="host to card (default: %(default)s)")
    args = parser.parse_args(argv)
    config = json.loads((companion_folder(args.like) / "config.json").read_text(encoding="utf-8"))
    settings = yaml.safe_load(from_root(args.recipe).read_text(encoding="utf-8"))
    print(f"projection, not measured: {args.tflops} TFLOP/s, {args.memory_gb_per_second} GB/s", file=sys.stderr)
    print(f"{'frames on the card':>18}{'GiB':>8}{'floor, s/frame':>16}{'expected, s/frame':>19}")
    card = Card(args.tflops * 1e12, args.memory_gb_per_second * 1e9, args.bus_gb_per_second * 1e9)
    for frames in (1, 2, 4, 8):
        changed = {**settings, "per_device_train_batch_size": frames}
        arithmetic, memory, bus = seconds_a_frame(changed, config, card)
        card_gib = predict_memory(changed, config, width=WIDTH, height=HEIGHT).card_gib
        expected = arithmetic / MEASURED_SHARE + memory + bus
        print(f"{frames:>18}{card_gib:>8.2f}{max(arithmetic, memory, bus):>16.2f}{expected:>19.2f}")
    for max_pixels in MAX_PIXELS.values():
        arithmetic, memory = seconds_an_answer(max_pixels, config, card)
        print(
            f"one frame answered, {visual_tokens(WIDTH, HEIGHT, max_pixels)} visual tokens: floor "
            f"{max(arithmetic, memory):.2f} s, expected {arithmetic / MEASURED_SHARE + memory:.2f} s"
        )
    return 0


def seconds_a_frame(settings: dict[str, Any], config: dict[str, Any], card: Card) -> tuple[float, float, float]:
    """Return the seconds of a frame's arithmetic, of unpacking 4-bit weights for it, and of the head's way there."""
    text, frames = config.get("text_config", config), settings["per_device_train_batch_size"]
    tokens = visual_tokens(WIDTH, HEIGHT, settings["max_pixels"])
    passes = 3 if settings["activation_checkpointing"] else 2
    operations = passes * language_flops(text, tokens + TEXT_TOKENS)
    if not settings["cache_vision_features"]:
        operations += vision_flops(config["vision_config"], PATCHES_A_TOKEN * tokens, text["hidden_size"])
    moved = passes * quantized_weights(text) * (2 if settings["unpack_base"] else UNPACKED_ON_THE_WAY)
    head = text["vocab_size"] * text["hidden_size"] * 2 if settings["head_on_host"] else 0
    return operations / card.flops, moved / card.memory / frames, head / card.bus / frames


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
