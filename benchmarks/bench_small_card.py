"""Measure the 7B where layers stream through the card: speed on a small card's rates, peaks under caps, exactness.

    python benchmarks/bench_small_card.py --like Qwen/Qwen2-VL-7B-Instruct --out outputs/bench_small_card
    python benchmarks/bench_small_card.py --before FOLDER --arms whole_card_80gb whole_card_8gb whole_card_6gb

An H100 stands for the small card: 8 of its multiprocessors and half of its bus compute and copy about twice as fast as
an RTX A1000, whose seconds are projected from that, not measured. The weights are random and the 1920x1080 frames
drawn. Every arm runs in a process of its own, one after another; run again, it keeps the arms that are finished. The
`whole_card` arms use the whole card; with `--before`, a checkout of commit 9264ce6, they measure it in turns with this
version. It needs one GPU of 80 GB, 16 CPU cores, 64 GB of memory and 40 GB of disk.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring.arms import measure_arms, measured_by, prepare_with_few, prepared, run_json, turns_parser
from benchmarks.measuring.checkouts import checkouts
from benchmarks.measuring.small_card_table import as_table
from data_prep.console import run_script
from data_prep.files import PROJECT_ROOT

SCRIPT = "benchmarks/arms/small_card.py"
CAPS = ("1.0", "1.6", "3.2", "5.2", "7.2")
SPEEDS = ("speed_computed", "speed_computed_streamed", "speed_kept", "speed_kept_streamed")
SMALL = (
    "exactness",
    *(f"{what}_{cap}" for cap in CAPS for what in ("capped", "answered")),
    *SPEEDS,
    "sixteen_bits",
    "sixteen_bits_part",
)
WHOLE = {"whole_card_80gb": ("80gb", 16), "whole_card_8gb": ("8gb", 4), "whole_card_6gb": ("6gb", 4)}
MEASURED_BY = {"now": "benchmarks.arms.train", "before": "benchmarks.train_arms"}
DRAWN_BY = {"now": "benchmarks.made.drawn_frames", "before": "benchmarks.drawn_frames"}


def main(argv: list[str]) -> int:
    """Make base and frames, measure each arm, write bench_small_card.json, print a table, one line of JSON last."""
    args = turns_parser(__doc__, "bench_small_card", (*SMALL, *WHOLE)).parse_args(argv)
    versions = checkouts(args.before, measured_by="benchmarks/train_arms.py")
    out = prepared(args, prepare_with_few)

    def measure(arm: str) -> Any:
        if arm in WHOLE:
            return in_turns(versions, out, *WHOLE[arm], args.rounds)
        return measured_by(SCRIPT, arm, out, "--blocks", str(args.blocks))

    print(as_table(measure_arms(out / "bench_small_card.json", args.arms, measure)))
    return 0


def in_turns(versions: dict[str, Path], out: Path, recipe: str, frames: int, rounds: int) -> dict[str, Any]:
    """Measure a recipe's speed by each version in turns, round after round, so that a slow minute meets all.

    Each draws frames of its own, the same ones, and keeps them in a folder by its name.
    """
    taken: dict[str, list[Any]] = {name: [] for name in versions}
    for _ in range(rounds):
        for name, root in versions.items():
            by = ["--by", MEASURED_BY[name], "--drawn-by", DRAWN_BY[name]]
            work = [*by, "--recipe", recipe, "--frames", str(frames)]
            folders = ["--out", str(out), "--own", str(out / name)]
            print(f"{recipe}, {name}", file=sys.stderr)
            taken[name].append(run_json([str(PROJECT_ROOT / "benchmarks/arms/versions.py"), *work, *folders], root))
    return {"recipe": recipe, "frames": frames, **taken}


if __name__ == "__main__":
    run_script(main)
