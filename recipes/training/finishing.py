"""What a trained run leaves beside its checkpoints. torch is loaded by what needs it."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.disk.disk_errors import told
from data_prep.files import write_atomic
from recipes.training.run_folder import SUMMARY_FILE

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
    from recipes.metrics.class_ids import class_ids
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
