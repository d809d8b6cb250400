"""Time how long a training takes to begin on a large data set whose vision features are kept already.

    python benchmarks/bench_start.py --out outputs/bench_start --rows 500000

It makes a data set of tiny frames and an entry of kept features for each. What is timed is all that sft_qwen2vl.py does
from its settings to the first update's batch, but for imports and the data set's own check: as often as asked, each
time in a process of its own. The first time reads every frame once, as the first training on a data set does.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.made.many_rows import FRAME_BYTES, make_rows, open_rows
from benchmarks.measuring.machine import processor
from benchmarks.measuring.recipe_arguments import recipe_arguments
from data_prep.console import run_script
from data_prep.disk.byte_counts import GIB
from data_prep.files import from_root, write_json
from data_prep.labels import TRAIN, VALIDATION
from recipes.model.base import find_base
from recipes.report.contents import versions
from recipes.training.command_line import read_settings
from recipes.training.run import Run, prepare_run

if TYPE_CHECKING:
    from recipes.training.trainer import SafetyTrainer

BASE, CONFIG = "./tiny_base/weights", "recipes/configs/demo_cpu.yaml"


def main(argv: list[str]) -> int:
    """Make rows and entries, time every start, write bench_start.json, print a table, one line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/bench_start", help="folder to write (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=500_000, help="training and validation rows (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="starts, the first included (default: %(default)s)")
    args = parser.parse_args(argv)
    out = from_root(args.out) / str(args.rows)
    out.mkdir(parents=True, exist_ok=True)
    make_rows(out, args.rows)
    in_its_own_process(make_entries, out)
    starts = [in_its_own_process(measure, out) for _ in range(args.rounds)]
    results = {
        **processor(),
        **versions(),
        "rows": args.rows,
        "frame_bytes": FRAME_BYTES,
        "starts": starts,
    }
    write_json(out / "bench_start.json", results)
    print(as_table(results))
    return 0


def in_its_own_process(function: Callable[[Path], Any], out: Path) -> Any:
    """Return what the function returns; its memory and what it has imported end with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, out).result()


def prepared(out: Path) -> Run:
    """Return the run that the demo's recipe is on the made data set."""
    settings = {
        "dataset": "made",
        "model_name_or_path": BASE,
        "output_dir": out / "run",
        "vision_cache": out / "vision",
        "report_to": "none",
    }
    arguments, source = recipe_arguments(CONFIG, settings), open_rows(out)
    with patch("recipes.training.run.open_dataset", lambda *_args, **_kwargs: source):
        return prepare_run(read_settings(arguments), find_base(BASE))


def make_entries(out: Path) -> None:
    """Write the kept features of every frame: the first one's, as all show one picture, under each frame's own name."""
    from recipes.batches.loader import encoded_image
    from recipes.training.building import vision_cache_of

    run = prepared(out)
    cache = vision_cache_of(run)
    entry = None
    for split in (TRAIN, VALIDATION):
        for row in run.source.rows(split):
            encoded = encoded_image(row)
            entry = entry or entry_of(run, encoded)
            path = cache.path(encoded)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(entry)


def entry_of(run: Run, encoded: bytes) -> bytes:
    """Return what the vision cache keeps of a frame, given as its encoded bytes."""
    import torch

    from recipes.model.forward import image_features as features_of
    from recipes.model.loading import load_tower
    from recipes.training.building import build_collator, vision_cache_of

    cache = vision_cache_of(run)
    tower = load_tower(run.base, dtype=torch.float32, device=torch.device("cpu"))
    pixels = build_collator(run).pixels([{"image": {"bytes": encoded}}])
    features = features_of(tower, pixels["pixel_values"], pixels["image_grid_thw"])
    cache.write(encoded, features, pixels["image_grid_thw"][0])
    return cache.path(encoded).read_bytes()


def measure(out: Path) -> dict[str, Any]:
    """Begin a training; return the seconds of each part and the process's memory at its peak."""

    seconds: dict[str, float] = {}

    def timed(part: str, function: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = function()
        seconds[part] = time.perf_counter() - begin
        return result

    with redirect_stdout(sys.stderr):
        run = timed("settings, the one prompt", lambda: prepared(out))
        timed("the data set in a line", lambda: print(run.source.describe()))
        timed("kept features found", lambda: find_kept_features(run))
        trainer = timed("base, adapter, trainer", lambda: trainer_of(run))
        timed("first update's batch", lambda: until_first_update(trainer))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "total_seconds": sum(seconds.values()), "peak_gib": peak / GIB}


def find_kept_features(run: Run) -> None:
    """Find every frame's features kept; this loads the trainer's libraries first, as training does."""
    from recipes.training.building import fill_vision_cache

    fill_vision_cache(run)


def trainer_of(run: Run) -> "SafetyTrainer":
    """Build the trainer."""
    from recipes.training.building import build_trainer

    return build_trainer(run)


def until_first_update(trainer: "SafetyTrainer") -> None:
    """Train up to where the first update would begin, its batch made."""
    from transformers import TrainerCallback

    class Begun(Exception):
        pass

    class EndThere(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise Begun

    trainer.add_callback(EndThere)
    with suppress(Begun):
        trainer.train()


def as_table(results: dict[str, Any]) -> str:
    """Lay out what was measured as text, one line of JSON last."""
    first, *later = results["starts"]
    lines = [f"{results['rows']} rows, seconds   {'first start':>14}{'later starts':>14}"]
    for part in (*first["seconds"], "total"):
        of = [start["total_seconds"] if part == "total" else start["seconds"][part] for start in (first, *later)]
        lines.append(f"{part:<26}{of[0]:>14.1f}{median(of[1:] or of):>14.1f}")
    lines.append(f"peak memory of a process: {max(start['peak_gib'] for start in results['starts']):.2f} GiB")
    return "\n".join([*lines, json.dumps(results)])


if __name__ == "__main__":
    run_script(main)
