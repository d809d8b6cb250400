"""How fast one version of the project trains, by its own trainer and loader, in a process of its own.

    python benchmarks/arms/versions.py --by benchmarks.arms.train --drawn-by benchmarks.made.drawn_frames
        --recipe 8gb --frames 4 --out DIR --own DIR

`--by` names the module of that version which builds trainers and measures them, `--drawn-by` the one which draws the
frames: versions keep records of clips that others can't read. The version is the one that Python finds them in. What is
measured is printed as the last line, in JSON.
"""

import argparse
import contextlib
import importlib
import json
import os
import sys
from pathlib import Path

TRAIN_CLIPS_PER_CLASS = 7
FRAMES_AN_UPDATE = 16


def main(argv: list[str]) -> int:
    """Measure the version, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", required=True, help="a module with build and measure")
    parser.add_argument("--drawn-by", required=True, help="a module with draw_data_folder")
    parser.add_argument("--recipe", required=True, help="6gb, 8gb or 80gb")
    parser.add_argument("--frames", type=int, required=True, help="on the card at once")
    parser.add_argument("--out", type=Path, required=True, help="the benchmark's folder, with the base")
    parser.add_argument("--own", type=Path, required=True, help="where this version keeps frames and vision features")
    args = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with contextlib.redirect_stdout(sys.stderr):
        by = importlib.import_module(args.by)
        data = drawn(args.drawn_by, args.own / "data")
        trainer = by.build(args.out, args.recipe, dataset=data, vision_cache=args.own / "vision")
        figures = by.measure(
            trainer,
            args.frames,
            accumulation=FRAMES_AN_UPDATE // args.frames,
            warm_up=2,
            updates_in_block=max(1, args.frames // 8),
        )
    print(json.dumps(figures))
    return 0


def drawn(by: str, folder: Path) -> Path:
    """Return the folder of the version's own frames, drawn unless they are there."""
    if not (folder / "test.jsonl").is_file():
        importlib.import_module(by).draw_data_folder(folder, train_clips_per_class=TRAIN_CLIPS_PER_CLASS)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
