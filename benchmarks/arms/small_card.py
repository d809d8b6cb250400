"""The arms of bench_small_card.py, each in a process of its own: `python benchmarks/arms/small_card.py ARM --out DIR`.

What an arm returns is printed as the last line, in JSON.
"""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.arms.train import build, in_budget
from benchmarks.made.drawn_frames import MAX_PIXELS
from benchmarks.made.random_adapter import write_random_adapter
from benchmarks.measuring.arms import FEW, SMALL_CARD_WORKSPACE, arm_parser, print_figures
from benchmarks.measuring.card import allow_no_more_than, matmul_rate, peaks
from benchmarks.measuring.part_of_card import use_part_of_card
from benchmarks.measuring.projection import projected
from benchmarks.measuring.said import stdout_lines
from benchmarks.measuring.streamed_equality import Trained, streamed_equality
from benchmarks.measuring.training_speed import measure, with_loading
from data_prep.files import from_root
from data_prep.labels import LABELS
from data_prep.rows.jsonl import read_rows
from recipes import infer
from recipes.layers.sizes import ALL, counted

FRAMES_AN_UPDATE = 16
WARM_UP_FRAMES = 4
DETERMINISTIC_WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # read as CUDA starts


class Speed(NamedTuple):
    """What a speed arm measures: a recipe with changes, at numbers of frames at once and of recomputed layers."""

    recipe: str
    changed: dict[str, Any]
    cases: list[tuple[int, str]]
    whole_card: bool = False


class Cap(NamedTuple):
    """What a capped arm runs: a recipe, frames at once, and what it may have of the card."""

    recipe: str
    frames: int
    gib: float
    changed: Mapping[str, Any] = {}


STREAMED = {"layers_on_host": ALL}
SIXTEEN_BITS = {**STREAMED, "load_in_4bit": False}
SPEEDS = {
    "speed_computed": Speed("8gb", {}, [(1, ALL), (2, ALL), (4, ALL), (8, ALL)]),
    "speed_computed_streamed": Speed("8gb", STREAMED, [(1, ALL), (2, ALL), (4, ALL), (8, ALL), (1, "0"), (2, "0")]),
    "speed_kept": Speed("6gb", {}, [(1, ALL), (4, ALL), (8, ALL)]),
    "speed_kept_streamed": Speed(
        "6gb", STREAMED, [(1, ALL), (4, ALL), (8, ALL), (1, "0"), (2, "0"), (3, "0"), (4, "14")]
    ),
    "sixteen_bits": Speed("6gb", SIXTEEN_BITS, [(4, ALL)], whole_card=True),
    "sixteen_bits_part": Speed("6gb", SIXTEEN_BITS, [(4, ALL)]),
}
CAPS = {
    "1.0": Cap("2gb", 1, 1.0, {"per_device_eval_batch_size": 2}),
    "1.6": Cap("2gb", 4, 1.6),
    "3.2": Cap("4gb", 8, 3.2),
    "5.2": Cap("6gb", 4, 5.2),
    "7.2": Cap("8gb", 8, 7.2),
}
EXACT = {"plain": {}, "streamed": STREAMED, "14 streamed": {"layers_on_host": "14"}}


def main(argv: list[str]) -> int:
    """Measure one arm. A process that computes on a part of the card ends here."""
    parser = arm_parser(__doc__, [*ARMS, *SPEEDS])
    parser.add_argument("--blocks", type=int, default=3, help="updates that a speed is timed over")
    args = parser.parse_args(argv)
    out, speed = from_root(args.out), SPEEDS.get(args.arm)
    if args.arm.startswith(("capped", "answered")):
        os.environ |= SMALL_CARD_WORKSPACE
    elif args.arm == "exactness":
        os.environ |= DETERMINISTIC_WORKSPACE
    print_figures(lambda: speeds(out, speed, args.blocks) if speed else ARMS[args.arm](out))
    if speed and not speed.whole_card:
        os._exit(0)
    return 0


def speeds(out: Path, speed: Speed, blocks: int) -> dict[str, Any]:
    """Measure a recipe at each number of frames and of recomputed layers, loaded once.

    The rate of a matrix product, measured first and last, says on how much of the card that was.
    """
    trainer = build(out, speed.recipe, **on_few_frames(out), **speed.changed)
    loading = torch.cuda.max_memory_allocated()
    if not speed.whole_card:
        use_part_of_card()
    before, rows = matmul_rate(), []
    for frames, recomputed in speed.cases:
        rows.append(with_loading(timed(trainer, frames, recomputed, blocks), loading))
        print(rows[-1], file=sys.stderr)
    rates = [rate / 1e12 for rate in (before, matmul_rate())]
    return {"matmul_tflops": rates, "whole_card": speed.whole_card, "rows": rows}


def on_few_frames(out: Path) -> dict[str, Any]:
    """Return the settings by which a run takes the few frames, and keeps their vision features beside."""
    return {"dataset": out / FEW, "vision_cache": out / "vision_of_few"}


def timed(trainer: Any, frames: int, recomputed: str, blocks: int) -> dict[str, Any]:
    """Return the seconds of a frame, in updates of about 16, and the peaks meanwhile."""
    recompute(trainer, recomputed)
    accumulation = FRAMES_AN_UPDATE // frames
    warm_up = max(1, WARM_UP_FRAMES // frames) / accumulation
    figures = measure(trainer, frames, accumulation=accumulation, warm_up=warm_up, updates_in_block=1, blocks=blocks)
    slowest, fastest = (1 / rate for rate in figures["frames_per_second_range"])
    seconds = 1 / figures["frames_per_second"]
    times = {"seconds_a_frame": seconds, "seconds_range": [fastest, slowest], "a1000_projected": projected(seconds)}
    return {**figures, "recomputed": recomputed, **times}


def recompute(trainer: Any, layers: str) -> None:
    """Have the next training recompute so many layers."""
    from recipes.training.callbacks import RecomputeFirst

    trainer.model.activation_checkpointing_disable()  # training only ever switches it on
    trainer.args.activation_checkpointing = layers != "0"
    number = counted(layers, len(trainer.model.get_base_model().model.language_model.layers))
    (callback,) = [each for each in trainer.callback_handler.callbacks if isinstance(each, RecomputeFirst)]
    callback.layers = number


def capped(out: Path, cap: Cap) -> dict[str, Any]:
    """Run a recipe from start to saved adapter under a cap; the peaks are of the whole process, its linear probe too.

    Vision features are computed, too, where the recipe keeps them: no other arm's are taken.
    """
    changed = {**on_few_frames(out), **cap.changed, "vision_cache": out / f"vision_{cap.gib}"}
    return in_budget(out, cap.recipe, cap.frames, cap.gib, **changed) | peaks()


def answered(out: Path, cap: Cap) -> dict[str, Any]:
    """Have infer.py answer two frames by a random adapter under a cap; it fails where it can't."""
    allow_no_more_than(cap.gib)
    adapter = out / "adapter"
    if not adapter.is_dir():
        write_random_adapter(adapter, out / "base", max_pixels=MAX_PIXELS[480])
    rows = read_rows(out / FEW / "train.jsonl")[:2]
    with stdout_lines() as lines:
        status = infer.main(["--adapter", str(adapter), "--image", *(str(out / FEW / row.image) for row in rows)])
    if status or len(lines) != len(rows) or not set(lines) <= set(LABELS):
        raise RuntimeError(f"infer.py ended with {status} and said {lines}")
    return {"cap_gib": cap.gib, "frames": len(rows), **peaks()}


def exactness(out: Path) -> dict[str, Any]:
    """Compare streamed models with a plain one, all on the card together, by the 6 GB recipe."""
    return streamed_equality({name: trained(out, changed) for name, changed in EXACT.items()})


def trained(out: Path, changed: dict[str, Any]) -> Trained:
    """Build a recipe's model, its vision features kept."""
    trainer = build(out, "6gb", **on_few_frames(out), **changed)

    def batch(frames: int) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = trainer.data_collator([trainer.train_dataset[row] for row in range(frames)])
        return found

    return Trained(trainer.model.get_base_model(), trainer.trained.weights, batch)


ARMS: dict[str, Callable[[Path], Any]] = {
    "exactness": exactness,
    **{f"capped_{gib}": partial(capped, cap=cap) for gib, cap in CAPS.items()},
    **{f"answered_{gib}": partial(answered, cap=cap) for gib, cap in CAPS.items()},
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
