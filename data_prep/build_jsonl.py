"""Write train.jsonl and test.jsonl, one row a frame, and audit.json about the clips behind them.

python data_prep/build_jsonl.py [--data data] [--keep-leaks] [--leave-out outputs/<run>/doubts/left_out.txt]
"""

import argparse
import sys
import time
from typing import Any

from data_prep.clips.audit import audit_clips
from data_prep.clips.audit_in_words import audit_in_words
from data_prep.clips.lookalikes import near_identical
from data_prep.clips.records import Clip
from data_prep.clips.split import check_both_splits
from data_prep.console import run_script
from data_prep.errors import printable
from data_prep.files import check_writable, from_root
from data_prep.labels import PROMPT, SPLITS, TRAIN, rows_file
from data_prep.prompt import read_prompt
from data_prep.rows.building import check_frames, read_extracted_clips, rows_by_split, write_splits
from data_prep.rows.jsonl import with_prompt
from data_prep.rows.left_out import left_out_in_words, read_left_out

REASONS = {"in_test": "its content stands in test", "both_labels": "its content stands under both labels"}


def main(argv: list[str]) -> int:
    """Check the frames against clips.jsonl, then write the rows of both splits and the audit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder with frames/ and clips.jsonl (default: data)")
    parser.add_argument("--prompt", metavar="FILE", help="text file with the question (default: the project's own)")
    parser.add_argument(
        "--keep-leaks",
        action="store_true",
        help="keep training clips whose content stands in test, too, or under both labels (default: leave them out)",
    )
    parser.add_argument(
        "--leave-out",
        metavar="FILE",
        help="leave out of train, and so of validation, the frames and clips of this list, one a line, a tab before "
        "the reason; recipes/doubts.py makes a page that gives one (default: nothing)",
    )
    args = parser.parse_args(argv)
    started = time.monotonic()
    prompt = read_prompt(from_root(args.prompt)) if args.prompt else PROMPT
    data = from_root(args.data)
    clips = read_extracted_clips(data)
    check_both_splits(clips)
    check_writable(data)
    check_frames(data, clips)
    _say_failed(clips)
    audit = audit_clips(clips, near_identical(data, clips), lambda clip: data)
    left_out = [] if args.keep_leaks else audit["leaks_in_train"]
    listed = read_left_out(from_root(args.leave_out), clips, data.resolve().name) if args.leave_out else []
    rows = with_prompt(rows_by_split(clips, left_out, listed), prompt)
    by_list = [{"path": each.name, "frames": len(each.images), "reason": each.reason} for each in listed]
    write_splits(data, rows, {"left_out_of_train": left_out, "left_out_by_list": by_list, **audit})
    print(audit_in_words(audit))
    print(_left_out_in_words(left_out, len(audit["leaks_in_train"])))
    if args.leave_out:
        print(left_out_in_words(listed, from_root(args.leave_out), len(rows[TRAIN])))
    print(f"asked: {' '.join(prompt.split())}", file=sys.stderr)
    counts = ", ".join(f"{rows_file(split)} {len(rows[split])} rows" for split in SPLITS)
    print(f"{counts}; {time.monotonic() - started:.1f} s", file=sys.stderr)
    return 0


def _left_out_in_words(left_out: list[dict[str, Any]], leaks: int) -> str:
    """Say which training clips have no rows and why, a line each."""
    if not left_out:
        return f"{rows_file(TRAIN)}: every clip" + (f", {leaks} leaks kept" if leaks else "")
    frames = sum(leak["frames"] for leak in left_out)
    lines = [f"{rows_file(TRAIN)}: {len(left_out)} clips, {frames} frames left out (--keep-leaks keeps them)"]
    for leak in left_out:
        reasons = [reason for key, reason in REASONS.items() if leak[key]]
        lines.append(f"  {leak['path']}: {', and '.join(reasons)}")
    return "\n".join(map(printable, lines))


def _say_failed(clips: list[Clip]) -> None:
    for clip in clips:
        if clip.status == "failed":
            print(printable(f"left out, because no frame could be had: {clip.path}: {clip.reason}"), file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
