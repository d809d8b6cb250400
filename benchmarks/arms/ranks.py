"""The arm of bench_ranks.py, run by one process or by each of several: `python benchmarks/arms/ranks.py ARM --out DIR`.

The arm is the size, full or small. What it measures is printed as the last line, in JSON, by the first process.
"""

from functools import partial
from pathlib import Path

from benchmarks.measuring.arms import arm_parser, print_figures
from data_prep.console import run_script, silence_known_messages
from data_prep.files import from_root
from recipes.ranks.joining import run_at
from recipes.ranks.place import take_place

SIZES = ("full", "small")


def main(argv: list[str]) -> int:
    """Measure as one of the processes that a launcher started, or alone."""
    place = take_place()  # before anything looks for cards: each process has one of its own
    parser = arm_parser(__doc__, SIZES)
    parser.add_argument("--frames", type=int, default=2000, help="frames of the scoring pass (default: %(default)s)")
    args = parser.parse_args(argv)
    silence_known_messages()
    return run_at(place, partial(measure, args.arm, from_root(args.out), args.frames))


def measure(size: str, out: Path, frames: int) -> int:
    """Print what is measured together with the other processes."""
    from benchmarks.measuring.together import figures

    print_figures(partial(figures, size, out, frames))
    return 0


if __name__ == "__main__":
    run_script(main)
