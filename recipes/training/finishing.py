"""What a trained run leaves beside its checkpoints. torch is loaded by what needs it."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.disk.disk_errors import told
from data_prep.files import to_root, write_atomic
from recipes.adapter.model_card import model_card
from recipes.metrics.threshold import choose_threshold, fixed_threshold
from recipes.training.building import build_trainer, fill_vision_cache
from recipes.training.checks import (
    check_learned,
)
from recipes.training.run import Run, safety_record
from recipes.training.run_folder import SUMMARY_FILE, RunFolder

if TYPE_CHECKING:
    import numpy as np

    from recipes.training.trainer import SafetyTrainer

PLOT_FILE = "training.png"


def attempt(what: str, make: Callable[[], None]) -> None:
    """Make something that a run is whole without: whatever it fails with is said in a line, and passed over."""
    try:
        make()
    except Exception as error:  # memory, a full disk, a library: none of it is worth the adapter
        reason = told(error) or " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{what} failed ({reason}); the adapter is whole without it", file=sys.stderr)


def training_summary(trainer: "SafetyTrainer") -> dict[str, Any]:
    """Return what this process did, and say it in a line: steps, seconds, best figure, peak memory on the card."""
    import torch

    state = trainer.state
    summary: dict[str, Any] = {
        "steps": state.global_step,
        "seconds": next(
            (entry["train_runtime"] for entry in reversed(state.log_history) if "train_runtime" in entry), None
        ),
        "best_step": state.best_global_step,
        "best_metric": state.best_metric,
        "log_history": state.log_history,
    }
    if torch.cuda.is_available():
        summary["peak_allocated_gib"] = torch.cuda.max_memory_allocated() / 2**30
        summary["peak_reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    summary = finite(summary)
    shown = {name: value for name, value in summary.items() if name != "log_history" and value is not None}
    print(", ".join(f"{name} {value:.4g}" for name, value in shown.items()), file=sys.stderr)
    return summary


def finite(value: Any) -> Any:
    """Return a JSON value with null in place of numbers that JSON lacks: a logged gradient norm may be infinite."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plot_training(folder: Path) -> None:
    """Leave a picture of the losses and the validation figures of a run's training.json beside it."""
    from recipes.training.curves import training_plot

    summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    write_atomic(folder / PLOT_FILE, training_plot(summary["log_history"], summary["best_step"]))


def fit_linear_probe(trainer: "SafetyTrainer", rows: Mapping[str, Any], *, balance_labels: bool, folder: Path) -> None:
    """Fit the linear probe that reports compare with on `rows`, by split, and save it beside the adapter."""
    from recipes.answering.pooling import pooled_features
    from recipes.metrics.figures import class_ids
    from recipes.metrics.linear_probe import Features, fit_probe

    def pooled(split: str) -> tuple[Features, "np.ndarray"]:
        features = pooled_features(
            trainer.model.get_base_model(),
            trainer.data_collator,
            rows[split],
            batch_size=trainer.args.per_device_eval_batch_size,
            folder=folder,
            num_workers=trainer.args.dataloader_num_workers,
        )
        return features, class_ids(rows[split]["response"][:])

    probe, reason = fit_probe(pooled("train"), pooled("validation"), balance_labels=balance_labels)
    print(reason, file=sys.stderr)
    probe.write(folder)


def save_adapter(trainer: "SafetyTrainer", folder: Path) -> None:
    """Save the adapter and its processor into a folder."""
    trainer.model.save_pretrained(str(folder))
    (folder / "README.md").unlink()  # PEFT's empty form of a card; the run writes its own
    trainer.processing_class.save_pretrained(folder)


def finish(run: Run, trainer: "SafetyTrainer", folder: RunFolder, *, trained: bool) -> None:
    """Leave what a finished run holds: the adapter first, then its record, then what may be missing."""
    state = trainer.state
    check_learned(trainer.model, state.best_global_step if run.training.load_best_model_at_end else state.global_step)
    folder.write_summary(training_summary(trainer), trained=trained)
    folder.write_adapter(lambda place: save_adapter(trainer, place))
    record = safety_record(run, *operating_point(run, trainer))
    write_atomic(folder.path / "README.md", model_card(record, to_root(folder.path)).encode())
    folder.finish(record)
    attempt(PLOT_FILE, lambda: plot_training(folder.path))
    add_linear_probe(run, trainer, folder)
    print(to_root(folder.path))


def complete(run: Run, folder: RunFolder) -> int:
    """Make what a finished run is to have and lacks, its picture or its linear probe; return the exit status."""
    from recipes.metrics.linear_probe import FILE_NAME
    from recipes.model.device import use_all_cores

    has_plot = (folder.path / PLOT_FILE).is_file()
    lacks_probe = run.recipe.linear_probe and not (folder.path / FILE_NAME).is_file()
    lacking = [what for what, lacks in ((PLOT_FILE, not has_plot), ("its linear probe", lacks_probe)) if lacks]
    rest = f", but for {' and '.join(lacking)}" if lacking else "; nothing to do"
    print(f"{folder.path.name}: this very run has finished already{rest}", file=sys.stderr)
    if not has_plot:
        attempt(PLOT_FILE, lambda: plot_training(folder.path))
    if lacks_probe:
        use_all_cores()
        fill_vision_cache(run)
        with redirect_stdout(sys.stderr):
            add_linear_probe(run, build_trainer(run), folder)
    return 0


def add_linear_probe(run: Run, trainer: "SafetyTrainer", folder: RunFolder) -> None:
    """Fit the linear probe where the settings want one; without it the run is whole, and --resume tries again."""
    if run.recipe.linear_probe:
        attempt(
            "the linear probe",
            lambda: fit_linear_probe(
                trainer,
                {split: run.source.rows(split) for split in ("train", "validation")},
                balance_labels=run.recipe.balance_labels,
                folder=folder.path,
            ),
        )


def operating_point(run: Run, trainer: "SafetyTrainer") -> tuple[float, str]:
    """Return the threshold that the settings name, or choose on the validation split, and how it came about."""
    rule = run.recipe.threshold
    fixed = fixed_threshold(rule)
    if fixed is not None:
        return fixed, "fixed"
    threshold, reason = choose_threshold(rule, *trainer.score(run.source.rows("validation")))
    print(f"threshold {threshold:.4g}: {reason}", file=sys.stderr)
    return threshold, reason
