"""A whole run under a cap, as its user starts it and the machine plans it: from features to probe, then its report."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring.arms import FEW
from benchmarks.measuring.card import allow_no_more_than, peaks
from benchmarks.measuring.recipe_arguments import CONFIG, recipe_arguments
from recipes import eval_qwen2vl, sft_qwen2vl
from recipes.machine.plan import PLANNED

UPDATES = 8  # which are judged and saved twice


def trained_whole(out: Path, gib: float) -> dict[str, Any]:
    """Train on the few frames by sft_qwen2vl.py's own plan for a cap, features computed first, a probe fitted last.

    Peaks are the whole process's. Raises RuntimeError where it ends otherwise than well.
    """
    allow_no_more_than(gib)
    run, features = run_folder(out, gib), out / f"vision_of_whole_{gib:g}"
    for folder in (run, features):
        shutil.rmtree(folder, ignore_errors=True)
    changed = {
        "model_name_or_path": out / "base",
        "dataset": out / FEW,
        "output_dir": run,
        "vision_cache": features,
        "max_steps": UPDATES,
        "eval_steps": 0.5,
        "save_steps": 0.5,
    }
    seconds = seconds_of_script(lambda: sft_qwen2vl.main(recipe_arguments(CONFIG, changed)))
    settings, summary = (json.loads((run / name).read_text(encoding="utf-8")) for name in ("run.json", "training.json"))
    written = sorted(file.name for file in run.iterdir() if file.is_file())
    return {
        "cap_gib": gib,
        "plan": {name: settings[name] for name in PLANNED if name in settings},
        "updates": summary["steps"],
        "seconds": seconds,
        "written": written,
        **peaks(),
    }


def evaluated_whole(out: Path, gib: float) -> dict[str, Any]:
    """Evaluate what trained_whole left, by eval_qwen2vl.py under the same cap."""
    allow_no_more_than(gib)
    seconds = seconds_of_script(lambda: eval_qwen2vl.main(["--adapter", str(run_folder(out, gib))]))
    predicted = run_folder(out, gib) / "eval" / "predictions.jsonl"
    return {"frames": len(predicted.read_text(encoding="utf-8").splitlines()), "seconds": seconds, **peaks()}


def run_folder(out: Path, gib: float) -> Path:
    """Return the folder of the run under a cap."""
    return out / "runs" / f"whole-{gib:g}"


def seconds_of_script(script: Callable[[], int]) -> float:
    """Return how long a script takes. Raises RuntimeError where its exit status isn't 0."""
    begin = time.perf_counter()
    if status := script():
        raise RuntimeError(f"it ended with {status}")
    return time.perf_counter() - begin
