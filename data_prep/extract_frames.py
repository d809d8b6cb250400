"""Take one frame a second from every clip of the data set and record how each clip went in clips.jsonl.

python data_prep/extract_frames.py [--data data] [--dataset DIR] [--fps 1] [--max-side N] [--workers N] [--dask ADDRESS]

A data set of your own, in folders of your own: --dataset DIR --classes classes.yaml [--camera-level N]
"""

import argparse
import contextlib
import sys
import time
from collections import Counter

from joblib import cpu_count

from data_prep.clips.extraction import extract_pending
from data_prep.clips.folders import remove_temporaries
from data_prep.clips.layout import add_layout_flags, layout_of
from data_prep.clips.plan import MOST_LOST, make_plan
from data_prep.clips.records import Clip, Settings
from data_prep.clips.workers import Pool, processes_here, processes_on_dask
from data_prep.console import run_script
from data_prep.errors import InputError, printable
from data_prep.files import from_root
from data_prep.locks import hold_lock
from data_prep.media.frame_format import JPEG_QUALITY

LOCK_FILE = ".extract_frames.lock"


def main(argv: list[str]) -> int:
    """Extract every clip that isn't extracted yet. Returns 1 if a clip failed and `--skip-bad` isn't given."""
    arguments = _parse(argv)
    data = from_root(arguments.data)
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; name the data folder with --data")
    started = time.monotonic()
    layout = layout_of(arguments, data)
    settings = Settings(arguments.fps, arguments.jpeg_quality, arguments.max_side)
    busy = f"another extract_frames.py is working in {data}; wait for it or end it"
    with hold_lock(data / LOCK_FILE, busy), _pool(arguments) as pool:
        remove_temporaries(data)
        plan = make_plan(data, layout, settings, pool, remove_vanished=arguments.remove_vanished)
        clips = extract_pending(data, layout.root, plan, pool)
    failed = _report(clips, Counter(clip.status for clip in plan), time.monotonic() - started)
    return 1 if failed and not arguments.skip_bad else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder that gets frames/ and clips.jsonl (default: data)")
    parser.add_argument("--dataset", help="the data set's root (default: found in the data folder)")
    add_layout_flags(parser)
    parser.add_argument("--fps", type=float, default=1.0, help="frames a second of video (default: 1)")
    parser.add_argument("--jpeg-quality", type=int, default=JPEG_QUALITY, help=f"1 to 95 (default: {JPEG_QUALITY})")
    parser.add_argument("--max-side", type=int, help="shrink frames to so many pixels a side (default: native size)")
    parser.add_argument("--workers", type=int, help="processes (default: one a core; with --dask all of its workers)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run on the workers of this Dask scheduler, tcp://host:8786")
    parser.add_argument("--skip-bad", action="store_true", help="exit with 0 although clips failed")
    parser.add_argument(
        "--remove-vanished",
        action="store_true",
        help=f"remove the frames of clips that are gone, more than {MOST_LOST} or half of them, too",
    )
    arguments = parser.parse_args(argv)
    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: at least 1 is needed")
    return arguments


def _pool(arguments: argparse.Namespace) -> contextlib.AbstractContextManager[Pool]:
    if arguments.dask:
        return processes_on_dask(arguments.dask, arguments.workers)
    return processes_here(arguments.workers or cpu_count())


def _report(clips: list[Clip], planned: Counter[str], seconds: float) -> int:
    """Say which clips are damaged, print the counts, and return how many clips failed.

    `planned` counts the clips by the status they had when extraction began.
    """
    for clip in clips:
        if clip.status != "ok":
            print(printable(f"{clip.status}: {clip.path}: {clip.reason}"), file=sys.stderr)
    counts = Counter(clip.status for clip in clips)
    print(
        f"{len(clips)} clips, {sum(clip.frames for clip in clips)} frames; {planned['pending']} decoded, "
        f"{planned['ok'] + planned['partial']} unchanged; {counts['ok']} ok, {counts['partial']} partial, "
        f"{counts['failed']} failed; {seconds:.1f} s"
    )
    return counts["failed"]


if __name__ == "__main__":
    run_script(main)
