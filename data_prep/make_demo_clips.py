"""Draw the demo's synthetic clips in the layout of the published data set, with its prior shift and its byte-copies.

python data_prep/make_demo_clips.py [--out data/demo] [--seed 0] [--train-clips N] [--test-clips N]

With --plant the same clips lie in clips/<camera>/<day>/<behaviour>/, as another plant's might, with a classes file.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm

from data_prep.clips.archive import DATASET_FOLDER
from data_prep.console import run_script
from data_prep.demo.clips import MAX_SEED, PlannedClip, encode_clip, plan_clips, with_copies
from data_prep.demo.plant import CLASSES, CLASSES_FILE, PLANT_FOLDER, PROMPT, PROMPT_FILE, as_plant
from data_prep.demo.record import Settings, hash_of_drawing, prepare, write_record
from data_prep.errors import InputError
from data_prep.files import from_root, sha256_of_file, write_atomic, write_together
from data_prep.labels import SAFE, SOURCE_CLASSES, SPLITS, TEST, TRAIN, UNSAFE


def main(argv: list[str]) -> int:
    """Draw the clips that aren't there yet and print how many there are."""
    arguments = _parse(argv)
    out = from_root(arguments.out)
    started = time.monotonic()
    folder = PLANT_FOLDER if arguments.plant else DATASET_FOLDER
    settings = Settings(arguments.seed, arguments.train_clips, arguments.test_clips, hash_of_drawing(), folder)
    plan = with_copies(plan_clips(TRAIN, settings.train_clips) + plan_clips(TEST, settings.test_clips))
    plan = as_plant(plan) if arguments.plant else plan
    missing = prepare(out, settings, plan)
    _draw_clips(out / folder, missing, settings.seed, arguments.workers)
    hashes = {clip.path: sha256_of_file(out / folder / clip.path) for clip in plan}
    write_record(out, settings, plan, hashes)
    if arguments.plant:
        write_together(out, {CLASSES_FILE: CLASSES.encode(), PROMPT_FILE: PROMPT.encode()})
    _report(plan, len(missing), time.monotonic() - started)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="data/demo", help=f"folder that gets {DATASET_FOLDER!r} (default: data/demo)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other clips (default: 0)")
    parser.add_argument("--train-clips", type=int, default=120, help="at least 8; 80%% are UNSAFE (default: 120)")
    parser.add_argument("--test-clips", type=int, default=60, help="at least 8; half are UNSAFE (default: 60)")
    parser.add_argument("--plant", action="store_true", help="lay them out as another plant's: by camera, day, folder")
    parser.add_argument("--workers", type=int, default=cpu_count(), help="processes (default: one a core)")
    arguments = parser.parse_args(argv)
    for flag in ("train_clips", "test_clips"):
        if getattr(arguments, flag) < len(SOURCE_CLASSES):
            name = flag.replace("_", "-")
            raise InputError(f"--{name} {getattr(arguments, flag)}: at least {len(SOURCE_CLASSES)}, one a class")
    if not 0 <= arguments.seed <= MAX_SEED:
        raise InputError(f"--seed {arguments.seed}: a whole number from 0 to {MAX_SEED} is needed")
    if arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: at least 1 is needed")
    return arguments


def _draw_clips(root: Path, clips: list[PlannedClip], seed: int, workers: int) -> None:
    drawn = Parallel(n_jobs=workers, return_as="generator_unordered")(
        delayed(_draw_clip)(root / clip.path, clip, seed) for clip in clips
    )
    for _ in tqdm(drawn, total=len(clips), desc="drawing", unit="clip", disable=not sys.stderr.isatty()):
        pass


def _draw_clip(path: Path, clip: PlannedClip, seed: int) -> None:
    write_atomic(path, encode_clip(clip, seed))


def _report(plan: list[PlannedClip], drawn: int, seconds: float) -> None:
    counts = []
    if any(clip.place for clip in plan):
        cameras = Counter(clip.path.partition("/")[0] for clip in plan)
        counts = [f"{count} {camera}" for camera, count in sorted(cameras.items())]
    for split in SPLITS if not counts else ():
        labels = [clip.source_class.label for clip in plan if clip.split == split]
        counts.append(f"{len(labels)} {split} ({labels.count(UNSAFE)} UNSAFE, {labels.count(SAFE)} SAFE)")
    print(f"clips: {', '.join(counts)}; drawn {drawn}, kept {len(plan) - drawn}; {seconds:.1f} s")


if __name__ == "__main__":
    run_script(main)
