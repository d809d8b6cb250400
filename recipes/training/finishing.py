"""What a trained run leaves beside its checkpoints. torch is loaded by what needs it."""

import math
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.disk.disk_errors import told
from data_prep.files import to_root
from recipes.adapter.model_card import CARD_FILE
from recipes.metrics.threshold import FIXED, choose_threshold, fixed_threshold
from recipes.ranks.place import is_first
from recipes.training.checks import check_learned
from recipes.training.run import Run
from recipes.training.run_folder import PLOT_FILE, RunFolder

if TYPE_CHECKING:
    import numpy as np

    from recipes.metrics.linear_probe import LinearProbe
    from recipes.training.trainer import SafetyTrainer


def finish(run: Run, trainer: "SafetyTrainer", *, trained: bool) -> None:
    """Leave what a finished run holds: the adapter first, then its record, then what it is whole without.

    Of several processes the first one writes; all of them score what the threshold and the linear probe come from.
    `trained` says whether this process made any of its updates. Raises InputError where the adapter learned nothing.
    """
    state, seen = trainer.state, trainer.seen_rows()
    check_learned(trainer.model, state.best_global_step if run.training.load_best_model_at_end else state.global_step)
    if is_first():
        run.folder.write_summary(training_summary(trainer), trained=trained)
        run.folder.write_adapter(partial(save_adapter, trainer))
        run.folder.write_log_odds(seen)
    decided = decide_threshold(run.recipe.threshold, trainer)
    if is_first():
        record = run.safety_record(*decided)
        run.folder.write_card(record)
        run.folder.finish(record)
        add_plot(run.folder)
    if run.recipe.linear_probe:
        add_linear_probe(trainer, balance_labels=run.recipe.balance_labels)
    print(to_root(run.folder.path))


def complete(run: Run) -> int:
    """Make what a finished run is to have and lacks, its picture or its linear probe; return the exit status.

    It is one process's work: others of a job have nothing to do.
    """
    folder = run.folder
    lacks_plot, lacks_probe = not folder.has_plot, run.recipe.linear_probe and not folder.has_probe
    lacking = [what for what, lacks in ((PLOT_FILE, lacks_plot), ("its linear probe", lacks_probe)) if lacks]
    rest = f", but for {' and '.join(lacking)}" if lacking else "; nothing to do"
    print(f"{folder.path.name}: this very run has finished already{rest}", file=sys.stderr)
    if lacks_plot:
        add_plot(folder)
    if lacks_probe:
        from recipes.model.device import use_all_cores
        from recipes.training.building import build_trainer, fill_vision_cache

        use_all_cores()
        fill_vision_cache(run)
        with redirect_stdout(sys.stderr):
            add_linear_probe(build_trainer(run), balance_labels=run.recipe.balance_labels)
    return 0


def add_plot(folder: RunFolder) -> None:
    """Draw the run's curves; without them it is whole, and --resume tries again."""
    attempt(PLOT_FILE, folder.write_plot)


def add_linear_probe(trainer: "SafetyTrainer", *, balance_labels: bool) -> None:
    """Fit the linear probe and keep it; without it the run is whole, and --resume tries again."""

    def fit_and_write() -> None:
        fitted = fit_linear_probe(trainer, balance_labels=balance_labels)
        if fitted is not None:
            print(fitted[1], file=sys.stderr)
            trainer.folder.write_probe(fitted[0])

    attempt("the linear probe", fit_and_write)


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
    summary = without_nan(summary)
    shown = {name: value for name, value in summary.items() if name != "log_history" and value is not None}
    print(", ".join(f"{name} {value:.4g}" for name, value in shown.items()), file=sys.stderr)
    return summary


def without_nan(value: Any) -> Any:
    """Return a JSON value with null in place of numbers that JSON lacks: a logged gradient norm may be infinite."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_adapter(trainer: "SafetyTrainer", folder: Path) -> None:
    """Save the adapter and its processor into a folder."""
    trainer.model.save_pretrained(str(folder))
    (folder / CARD_FILE).unlink()  # PEFT's empty form of a card; the run writes its own
    trainer.processing_class.save_pretrained(folder)


def decide_threshold(rule: str, trainer: "SafetyTrainer") -> tuple[float, str]:
    """Return the threshold that a rule names, or chooses on the validation split, and how it came about."""
    fixed = fixed_threshold(rule)
    if fixed is not None:
        return fixed, FIXED
    threshold, reason = choose_threshold(rule, *trainer.score(trainer.eval_dataset))
    print(f"threshold {threshold:.4g}: {reason}", file=sys.stderr)
    return threshold, reason


def fit_linear_probe(trainer: "SafetyTrainer", *, balance_labels: bool) -> "tuple[LinearProbe, str] | None":
    """Fit the linear probe that reports compare with to the trainer's rows, and say in words what was chosen.

    Of several processes, each of which computes its part of the features, the first one fits it; others return None.

    Features pass through a file without a name, on the disk that the run's folder is on.
    """
    from recipes.answering.pooling import pooled_together
    from recipes.metrics.class_ids import class_ids
    from recipes.metrics.linear_probe import Features, fit_probe

    def pooled(rows: Any) -> "tuple[Features, np.ndarray]":
        features = pooled_together(
            trainer.model.get_base_model(),
            trainer.data_collator,
            rows,
            batch_size=trainer.args.per_device_eval_batch_size,
            folder=trainer.folder.path,
            num_workers=trainer.args.dataloader_num_workers,
        )
        return features, class_ids(rows["response"][:])

    training, validation = pooled(trainer.train_dataset), pooled(trainer.eval_dataset)
    return fit_probe(training, validation, balance_labels=balance_labels) if is_first() else None
