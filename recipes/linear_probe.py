"""A cheap learner to measure the fine-tuned model against: logistic regression on pooled vision-tower features.

It sees what the frozen tower sees, averaged over a frame, and learns from the same rows; what the adapter does better
comes from the language model and from where in the frame things are. Linear probes are due to Alain and Bengio 2016,
arXiv 1610.01644. Training fits it, evaluation scores it beside the adapter.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from data_prep.errors import InputError
from data_prep.files import write_atomic
from recipes.collator import VisionCollator, batches
from recipes.forward import Batch, with_features
from recipes.metrics import compute_figures
from recipes.safety_record import PLAIN_THRESHOLD

FILE_NAME = "linear_probe.safetensors"
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C on standardised features, the strongest first


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe: `weight` of shape (hidden,) and `bias` of shape (), on pooled features as pool gives them."""

    weight: np.ndarray
    bias: np.ndarray

    def p_unsafe(self, pooled: np.ndarray) -> np.ndarray:
        """Return P(UNSAFE), of shape (n,), of pooled features, of shape (n, hidden)."""
        return 1 / (1 + np.exp(-(pooled.astype(np.float64) @ self.weight + self.bias).clip(-500, 500)))

    def write(self, folder: Path) -> None:
        """Write the probe into an adapter's folder, whole or not at all."""
        write_atomic(folder / FILE_NAME, save({"weight": self.weight, "bias": self.bias}))


def read_probe(folder: Path) -> LinearProbe | None:
    """Return the probe beside an adapter, None where there is none. Raises InputError where it is damaged."""
    file = folder / FILE_NAME
    if not file.is_file():
        return None
    try:
        probe = LinearProbe(**load_file(file))
    except (SafetensorError, TypeError):
        probe = None
    if probe is None or not (np.isfinite(probe.weight).all() and np.isfinite(probe.bias).all()):
        raise InputError(f"{file}: damaged; remove it to evaluate without the linear probe")
    return probe


def pool(features: torch.Tensor, grids: torch.Tensor, merge: int) -> torch.Tensor:
    """Return the mean of each frame's features, of shape (frames, hidden), in fp32.

    `features` has shape (visual tokens, hidden), frame after frame; `grids`, of shape (frames, 3), counts their patches
    in time, height and width, of which `merge` times `merge` make a token.
    """
    sizes = (grids.prod(1) // merge**2).tolist()
    return torch.stack([part.float().mean(0) for part in features.split(sizes)])


def pooled_features(
    model: Any, collator: VisionCollator, rows: Any, *, batch_size: int, num_workers: int = 0
) -> np.ndarray:
    """Return the pooled features of every row, in order, of shape (rows, hidden), kept ones where the collator has."""
    loader = batches(rows, collator.vision, batch_size=batch_size, num_workers=num_workers)
    progress = tqdm(loader, desc="linear probe", unit="batch", disable=not sys.stderr.isatty())
    return np.concatenate([pooled_batch(model, batch) for batch in progress])


def pooled_batch(model: Any, batch: Batch) -> np.ndarray:
    """Return the pooled features of a batch's frames, of shape (frames, hidden); see with_features."""
    merge = model.config.vision_config.spatial_merge_size
    return pool(with_features(model, batch)["image_features"], batch["image_grid_thw"], merge).cpu().numpy()


def fit_probe(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], *, balance_labels: bool
) -> tuple[LinearProbe, str]:
    """Fit a probe on pooled features and class ids, and say in words what was chosen.

    Of PENALTIES the one of the best macro-F1 on validation is taken, of equals the strongest. `balance_labels` weighs
    the labels alike, as training does.
    """
    best, best_macro_f1, chosen = None, -1.0, 0.0
    for penalty in PENALTIES:
        learner = LogisticRegression(C=penalty, class_weight="balanced" if balance_labels else None, max_iter=1000)
        probe = _unscaled(make_pipeline(StandardScaler(), learner).fit(*train))
        figures = compute_figures(probe.p_unsafe(validation[0]), validation[1], threshold=PLAIN_THRESHOLD)
        macro_f1 = figures["macro_f1"] or 0.0
        if macro_f1 > best_macro_f1:
            best, best_macro_f1, chosen = probe, macro_f1, penalty
    assert best is not None
    return best, f"linear probe on {len(train[1])} frames: C {chosen:g}, validation macro-F1 {best_macro_f1:.3f}"


def _unscaled(fitted: Any) -> LinearProbe:
    """Return the probe that does on features as they are what a fitted pipeline does on standardised ones."""
    scaler, learner = fitted[0], fitted[1]
    weight = learner.coef_[0] / scaler.scale_
    return LinearProbe(weight.astype(np.float64), np.asarray(learner.intercept_[0] - scaler.mean_ @ weight))
