"""The arms of bench_plan.py, each in a process of its own: `python benchmarks/arms/plan.py ARM --out DIR`.

What an arm returns is printed as the last line, in JSON.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring.answer_times import answers_alone, open_bench
from benchmarks.measuring.arms import SMALL_CARD_WORKSPACE, arm_parser, print_figures, run, run_json
from benchmarks.measuring.card import allow_no_more_than, matmul_rate, peaks
from benchmarks.measuring.kernel_speed import kernel_rows
from benchmarks.measuring.part_of_card import use_part_of_card
from benchmarks.measuring.planned_run import Planned, planned_run, rates
from benchmarks.measuring.whole_run import evaluated_whole, trained_whole
from data_prep.files import from_root, write_json
from recipes.layers.sizes import text_config
from recipes.layers.streamed_blocks import modules_of_streamed_blocks
from recipes.machine.cards import Card
from recipes.model.compiling import compile_layers

SCRIPT = "benchmarks/arms/plan.py"
SIZE_OF_2B = "base_2b"
ANSWERS = 12  # that are timed
WHOLE_GIB = 40.0  # for the matrix product at the end

COMPUTED, KEPT = ({"cache_vision_features": str(kept)} for kept in (False, True))
SMALL = partial(Planned, 8, halved_bus=True)
PLANS = {
    "planned_7.2_computed": SMALL(7.2, changed=COMPUTED),
    "planned_7.2": SMALL(7.2, changed=KEPT),
    "planned_5.2": SMALL(5.2, changed=KEPT),
    "planned_3.2": SMALL(3.2, changed=KEPT),
    "planned_1.6": SMALL(1.6, changed=KEPT),
    "planned_7.2_252": SMALL(7.2, changed={"max_pixels": 200704}),
    "planned_2b": SMALL(3.2, changed={"model_name_or_path": SIZE_OF_2B}),
    "planned_32_7.2": Planned(32, 7.2, changed=KEPT),
    "planned_32_15.2": Planned(32, 15.2, changed=COMPUTED),
    "planned_whole": Planned(None, changed=COMPUTED),
}
ON_PART = ("kernels", "answers", "planned", "rates")  # what arms begin with that may compute on a part of the card
CAPPED = ("answers", "whole", "evaluated")


def main(argv: list[str]) -> int:
    """Measure one arm. A process that may compute on a part of the card ends here."""
    parser = arm_parser(__doc__, [*ARMS, *PLANS])
    parser.add_argument("--blocks", type=int, default=3, help="updates that a speed is timed over")
    args = parser.parse_args(argv)
    out, plan = from_root(args.out), PLANS.get(args.arm)
    if args.arm.startswith(CAPPED) or (plan and plan.cap_gib):
        os.environ |= SMALL_CARD_WORKSPACE
    print_figures(lambda: planned(out, plan, args.blocks) if plan else ARMS[args.arm](out))
    if args.arm.startswith(ON_PART):
        os._exit(0)
    return 0


def planned(out: Path, plan: Planned, blocks: int) -> dict[str, Any]:
    """Plan and measure a run; the rates of its part of the card are measured once, by a process of their own."""
    if plan.changed.get("model_name_or_path") == SIZE_OF_2B and not (out / SIZE_OF_2B).is_dir():
        like = ["--like", str(out / "base"), "--size", "2b"]
        run(["benchmarks/made/random_qwen2vl.py", *like, "--out", str(out / SIZE_OF_2B)])
    arm = f"rates_{plan.multiprocessors or 'whole'}"
    file = out / f"{arm}.json"
    if not file.is_file():
        write_json(file, run_json([SCRIPT, arm, "--out", str(out)]))
    return planned_run(out, plan, Card(**json.loads(file.read_text(encoding="utf-8"))), blocks=blocks)


def answers(out: Path, gib: float) -> dict[str, Any]:
    """Time one frame, the model alone, on a part of the card and under a cap; compiled, too, where nothing streams."""
    allow_no_more_than(gib)
    bench = open_bench(out)
    adapted, _ = bench.load()
    use_part_of_card()
    rows = list(answers_alone(bench, adapted, "eager", ANSWERS))
    figures = peaks()
    if not any(modules_of_streamed_blocks(adapted.model)):
        compile_layers(adapted.model)
        rows += answers_alone(bench, adapted, "compiled", ANSWERS)
    allow_no_more_than(WHOLE_GIB)
    return {"cap_gib": gib, "matmul_tflops": matmul_rate() / 1e12, "answers": rows, **figures}


def whole(out: Path, gib: float) -> dict[str, Any]:
    """Train a whole run by its own plan under a cap, and have another process evaluate it under the same."""
    trained = trained_whole(out, gib)
    return {"trained": trained, "evaluated": run_json([SCRIPT, f"evaluated_{gib:g}", "--out", str(out)])}


def kernels(out: Path, *, whole_card: bool) -> dict[str, Any]:
    """Measure this project's GPU kernels beside what they stand for; of the base its config.json alone is read."""
    text = text_config(json.loads((out / "base" / "config.json").read_text(encoding="utf-8")))
    if not whole_card:
        use_part_of_card()
    return {"matmul_tflops": matmul_rate() / 1e12, "whole_card": whole_card, "kernels": kernel_rows(text)}


ARMS: dict[str, Callable[[Path], Any]] = {
    "kernels": partial(kernels, whole_card=False),
    "kernels_whole": partial(kernels, whole_card=True),
    "answers_1.6": partial(answers, gib=1.6),
    "answers_7.2": partial(answers, gib=7.2),
    "whole_7.2": partial(whole, gib=7.2),
    "whole_1.6": partial(whole, gib=1.6),
    "evaluated_7.2": partial(evaluated_whole, gib=7.2),
    "evaluated_1.6": partial(evaluated_whole, gib=1.6),
    "rates_8": lambda out: rates(8, halved_bus=True),
    "rates_32": lambda out: rates(32),
    "rates_whole": lambda out: rates(None),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
