"""Measure the 7B as the machine itself plans it: its seconds and memory beside what the plan predicted.

    python benchmarks/bench_plan.py --like Qwen/Qwen2-VL-7B-Instruct --out outputs/bench_plan
    python benchmarks/bench_plan.py --before FOLDER --arms whole_card

An H100 stands for smaller cards: 8 of its multiprocessors and half of its bus for one about twice as fast as an RTX
A1000, 32 of them for a larger one, under caps on its memory. The weights are random and the 1920x1080 frames drawn.
`planned` arms train by the project's own loop, `answers` ask about one frame, `kernels` measures the project's GPU
kernels beside what libraries have, `whole` arms run sft_qwen2vl.py by its own plan, from features to probe, and then
eval_qwen2vl.py under the same cap. `whole_card` uses all of the card, in turns with the 80 GB recipe of commit 9264ce6
where `--before` names a checkout of that. Every arm runs in a process of its own; run again, it keeps the arms that are
finished. It needs one GPU of 80 GB, 16 CPU cores, 64 GB of memory and 40 GB of disk.
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring.arms import measure_arms, measured_by, prepare_with_few, prepared, run_json, turns_parser
from benchmarks.measuring.checkouts import checkouts
from benchmarks.measuring.plan_table import as_table
from data_prep.console import run_script
from data_prep.files import PROJECT_ROOT

SCRIPT = "benchmarks/arms/plan.py"
WHOLE = "whole_card"
ARMS = (
    "kernels",
    "kernels_whole",
    "answers_7.2",
    "answers_1.6",
    "planned_7.2_computed",
    "planned_7.2",
    "planned_5.2",
    "planned_3.2",
    "planned_1.6",
    "planned_7.2_252",
    "planned_2b",
    "planned_32_7.2",
    "planned_32_15.2",
    "whole_7.2",
    "whole_1.6",
    WHOLE,
)
BEFORE = [
    "--by",
    "benchmarks.train_arms",
    "--drawn-by",
    "benchmarks.drawn_frames",
    "--recipe",
    "80gb",
    "--frames",
    "16",
]


def main(argv: list[str]) -> int:
    """Make base and frames, measure each arm, write bench_plan.json, print a table, one line of JSON last."""
    args = turns_parser(__doc__, "bench_plan", ARMS).parse_args(argv)
    versions = checkouts(args.before, measured_by="benchmarks/train_arms.py")
    out = prepared(args, prepare_with_few)

    def measure(arm: str) -> Any:
        if arm == WHOLE:
            return in_turns(versions, out, args.rounds)
        return measured_by(SCRIPT, arm, out, "--blocks", str(args.blocks))

    print(as_table(measure_arms(out / "bench_plan.json", args.arms, measure)))
    return 0


def in_turns(versions: dict[str, Path], out: Path, rounds: int) -> dict[str, Any]:
    """Measure the whole card's speed by each version in turns, round after round, so that a slow minute meets all."""
    taken: dict[str, list[Any]] = {name: [] for name in versions}
    for _ in range(rounds):
        for name, root in versions.items():
            print(f"whole card, {name}", file=sys.stderr)
            if name == "now":
                taken[name].append(measured_by(SCRIPT, "planned_whole", out))
                continue
            folders = ["--out", str(out), "--own", str(out / name)]
            taken[name].append(run_json([str(PROJECT_ROOT / "benchmarks/arms/versions.py"), *BEFORE, *folders], root))
    return taken


if __name__ == "__main__":
    run_script(main)
