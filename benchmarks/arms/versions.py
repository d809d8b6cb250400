"""How fast one version of the project trains, by its own trainer and loader, in a process of its own.

    python benchmarks/arms/versions.py --by benchmarks.arms.train --recipe 8gb --frames 4 --out DIR --vision DIR

`--by` names the module of that version which builds trainers and measures them; the version is the one that Python
finds it in. What is measured is printed as the last line, in JSON.
"""

import argparse
import contextlib
import importlib
import json
import os
import sys
from pathlib import Path

FRAMES_AN_UPDATE = 16


def main(argv: list[str]) -> int:
    """Measure the version, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", required=True, help="a module with build and measure")
    parser.add_argument("--recipe", required=True, help="6gb, 8gb or 80gb")
    parser.add_argument("--frames", type=int, required=True, help="on the card at once")
    parser.add_argument("--out", type=Path, required=True, help="the benchmark's folder, with the base and data/")
    parser.add_argument("--vision", type=Path, required=True, help="where this version keeps its vision features")
    args = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with contextlib.redirect_stdout(sys.stderr):
        by = importlib.import_module(args.by)
        trainer = by.build(args.out, args.recipe, vision_cache=args.vision)
        figures = by.measure(
            trainer,
            args.frames,
            accumulation=FRAMES_AN_UPDATE // args.frames,
            warm_up=2,
            updates_in_block=max(1, args.frames // 8),
        )
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
