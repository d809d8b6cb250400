"""Find labels that were made wrong on purpose, and see what leaving them out regains.

    python benchmarks/bench_doubts.py --out outputs/bench_doubts --seeds 0 1 2

It wants the data folder that `make demo` leaves, and trains by the demo's own recipe: on labels as they are, on labels
flipped at random, on whole clips under the wrong label, and on a drawing in which half of the UNSAFE clips show nothing
unsafe at first. Each run's frames are ranked by recipes/doubts.py from what its training noted. A reviewer, who is a
function that knows the drawing, ticks those of the first fifth that it contradicts; they are left out and the run is
trained again. Run again, it keeps what is finished.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring.demo_runs import seeds_arguments
from benchmarks.measuring.doubt_runs import ARMS, Doubts, check_demo
from benchmarks.measuring.doubt_tables import as_table, summarise
from benchmarks.measuring.machine import machine
from data_prep.console import run_script
from data_prep.files import from_root, to_root, write_json
from data_prep.locks import hold_lock


def main(argv: list[str]) -> int:
    """Train and evaluate every arm with every seed, one seed after another, and print the table."""
    args = seeds_arguments(argv, __doc__, "bench_doubts")
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    out = from_root(args.out)
    out.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    with hold_lock(out / ".lock", f"another benchmark is at work in {to_root(out)}; wait or end it"):
        check_demo(from_root(args.data))
        cost = kept_cost(from_root(args.data), out)
        for seed in args.seeds:
            doubts = Doubts(from_root(args.data), out, seed)
            for arm in ARMS:
                runs.append(doubts.finish(arm))
                summary = summarise(runs)
                results = {"schema_version": 1, "machine": machine(), "runs": runs, "summary": summary, "cost": cost}
                write_json(out / "bench_doubts.json", results)
    print(as_table(summary))
    print(f"noting takes {100 * cost['share']:.3f} % of a training step")
    print(f"figures: {to_root(out / 'bench_doubts.json')}", file=sys.stderr)
    return 0


def kept_cost(data: Path, out: Path) -> dict[str, Any]:
    """Return what noting costs, measured unless that is done already."""
    file = out / "cost.json"
    if not file.is_file():
        from benchmarks.measuring.noting_cost import noting_cost

        write_json(file, noting_cost(data, out / "cost"))
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    run_script(main)
