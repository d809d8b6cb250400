"""See other bases than the 7B through on a GPU: the 2B with each recipe, and one that comes in 4 bits.

    python benchmarks/bench_bases.py --like Qwen/Qwen2-VL-7B-Instruct --out outputs/bench_bases

The 2B's weights are random, its tokenizer the 7B's, the 1920x1080 frames drawn: each run trains three updates and
evaluates what came of it, and its peak on the card stands beside the predicted one. The answers mean nothing, but those
of one adapter on a base packed here and on the same base packed before must be the same. Every arm runs in a process of
its own; run again, it keeps the arms that are finished. It needs one GPU of 40 GB and 15 GB of disk.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.made.drawn_frames import draw_data_folder
from benchmarks.measuring.arms import run, run_benchmark
from data_prep.console import run_script

ARMS = ("6gb", "8gb", "80gb", "packed")
TRAIN_CLIPS_PER_CLASS = 3


def main(argv: list[str]) -> int:
    """Make base and frames, see each arm through, write bench_bases.json, print a table, one line of JSON last."""
    print(as_table(run_benchmark(argv, __doc__, "bench_bases", "benchmarks/arms/bases.py", ARMS, make=prepare)))
    return 0


def prepare(out: Path, like: str) -> None:
    """Write the random 2B and the frames, unless they are there."""
    if not (out / "2b" / "model.safetensors.index.json").is_file():
        run(["benchmarks/made/random_qwen2vl.py", "--like", like, "--size", "2b", "--out", str(out / "2b")])
    if not (out / "data" / "test.jsonl").is_file():
        draw_data_folder(out / "data", train_clips_per_class=TRAIN_CLIPS_PER_CLASS)


def as_table(results: dict[str, Any]) -> str:
    """Lay out what was seen as text, one line of JSON last."""
    lines = [
        f"{'':<42}{'batch':>6}{'updates':>9}{'allocated GiB':>15}{'predicted':>11}{'frames judged':>15}{'p50 ms':>9}"
        f"{'s':>6}"
    ]
    for arm in results["arms"].values():
        for row in arm["runs"]:
            lines.append(
                f"{row['run']:<42}{row['frames_at_once']:>6}{row['steps']:>9}{row['peak_allocated_gib']:>15.2f}"
                f"{row['predicted_gib']:>11.2f}{row['frames_evaluated']:>15}{row['answer_p50_ms']:>9.1f}"
                f"{row['seconds']:>6.0f}"
            )
    if "packed" in results["arms"]:
        for how, difference in results["arms"]["packed"]["p_unsafe_off"].items():
            lines.append(
                f"P(UNSAFE) on the base packed before, {how}: at most {difference:.1e} off the one packed here"
            )
    return "\n".join([*lines, json.dumps(results)])


if __name__ == "__main__":
    run_script(main)
