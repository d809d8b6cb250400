"""Rank a run's training frames by how doubtful their label is: a page to look through, in outputs/<run>/doubts/.

    python recipes/doubts.py --adapter outputs/qwen2vl_7b

It reads what training noted, so no model is loaded. What is ticked on the page, build_jsonl.py --leave-out leaves out.
"""

import argparse
import json
import sys
from pathlib import Path

from data_prep.console import run_script, silence_known_messages, stay_offline
from data_prep.errors import InputError
from data_prep.files import check_writable, from_root, to_root, write_together
from data_prep.hub.source import FramesSource, open_dataset
from data_prep.labels import TRAIN
from recipes.adapter.safety_record import SafetyRecord, read_record
from recipes.metrics.seen_rows import SeenRows, file_name, read_seen_rows
from recipes.ranks.place import check_one_process
from recipes.report.doubtful import ranked_clips, ranked_frames, twins_of_rows
from recipes.report.doubts_page import clips_shown, doubts_page

PAGE_BYTES = 2_000_000  # at least; most are pictures


def main(argv: list[str]) -> int:
    """Rank frames and clips, and write doubts.jsonl and doubts.html."""
    check_one_process("doubts.py")
    silence_known_messages()
    args = parse_arguments(argv)
    run = from_root(args.adapter)
    record, seen = read_record(run), read_seen_rows(run)
    record.check_adapter(run)
    if seen is None:
        raise InputError(
            f"adapter {run}: {file_name()} is missing, which training writes; an earlier version trained it, so train "
            "it again"
        )
    stay_offline()
    source = training_data(record, args.dataset)
    folder = run / "doubts"
    check_writable(folder, PAGE_BYTES)

    rows = source.rows(TRAIN)
    say_unseen(run, seen, len(rows))
    frames = ranked_frames(rows, seen, twins_of_rows(source))
    clips = ranked_clips(frames)
    shown = clips_shown(rows, frames, clips, shown=round(args.shown * len(frames)))
    page = doubts_page(shown, run=to_root(run), source=source, frames=len(frames), clips=len(clips))
    lines = "".join(json.dumps(each, allow_nan=False) + "\n" for each in [*frames, *clips])
    folder.mkdir(parents=True, exist_ok=True)
    write_together(folder, {"doubts.jsonl": lines.encode(), "doubts.html": page.encode()})
    for frame in frames[:5]:
        print(f"{frame['image']}: {frame['label']}, {frame['reason']}")
    print(f"page: {to_root(folder / 'doubts.html')}", file=sys.stderr)
    return 0


def training_data(record: SafetyRecord, dataset: str | None) -> FramesSource:
    """Return what an adapter was trained on. Raises InputError where it holds other rows now."""
    source = open_dataset(dataset or record.dataset, revision=None if dataset else record.dataset_revision)
    if source.content_hash != record.dataset_hash:
        raise InputError(
            f"data set {source.id!r} holds other rows than the adapter was trained on; name with --dataset where those "
            "lie, or train again"
        )
    return source


def say_unseen(run: Path, seen: SeenRows, rows: int) -> None:
    """Say how many rows nothing was noted of. Raises InputError where it was noted of other rows than these."""
    numbers = set(seen.row.tolist())
    if numbers and max(numbers) >= rows:
        raise InputError(
            f"{run / file_name()}: is of {max(numbers) + 1} rows at least, but the adapter trains on {rows}; train it "
            "again"
        )
    if missing := rows - len(numbers):
        print(
            f"warning: {missing} of {rows} rows weren't seen since the run began to be noted; they come last",
            file=sys.stderr,
        )


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder of a finished run, for example outputs/demo")
    parser.add_argument("--dataset", help="where its data lies now: a pushed id or a folder (default: where it was)")
    parser.add_argument(
        "--shown", type=float, default=0.2, metavar="SHARE", help="of the frames, on the page (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if not 0 < args.shown <= 1:
        raise InputError(f"--shown {args.shown:g} must be above 0 and at most 1")
    return args


if __name__ == "__main__":
    run_script(main)
