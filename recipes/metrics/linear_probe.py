"""A cheap learner to measure the fine-tuned model against: logistic regression on pooled vision-tower features.

It sees what the frozen tower sees, averaged over a frame, and learns from the same rows; what the adapter does better
comes from the language model and from where in the frame things are. Linear probes are due to Alain and Bengio 2016,
arXiv 1610.01644. Training fits it, evaluation scores it beside the adapter.

The fit is that of scikit-learn's StandardScaler and LogisticRegression, whose objective, solver and tolerances these
are; but it goes through the features block by block, so that they may be more than memory holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.optimize import minimize
from scipy.special import expit

from data_prep.errors import InputError
from data_prep.files import write_atomic
from recipes.metrics.safety_metric import compute_figures
from recipes.metrics.threshold import PLAIN_THRESHOLD

FILE_NAME = "linear_probe.safetensors"
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C on standardised features, the strongest first
_SOLVER = {"maxiter": 1000, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}  # scikit-learn's, but maxiter
_BLOCK = 2**22  # values that are worked on at once: 16 MB
_KEPT = 2**26  # values that are kept standardised, not read again for each step of the solver: 256 MB


class Features(Protocol):
    """What a probe is fitted to: an array of shape (frames, hidden), or something read from a disk slice by slice."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (frames, hidden)."""

    def __getitem__(self, frames: slice, /) -> np.ndarray:
        """Return the features of some frames."""


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


def fit_probe(
    train: tuple[Features, np.ndarray], validation: tuple[Features, np.ndarray], *, balance_labels: bool
) -> tuple[LinearProbe, str]:
    """Fit a probe on pooled features and class ids, and say in words what was chosen.

    Of PENALTIES the one of the best macro-F1 on validation is taken, of equals the strongest. `balance_labels` weighs
    the labels alike, as training does.
    """
    best, best_macro_f1, chosen = None, -1.0, 0.0
    standardized = _Standardized.of(train[0])
    for penalty in PENALTIES:
        probe = _fit(standardized, train[1], penalty, balance_labels=balance_labels)
        p_unsafe = np.concatenate([probe.p_unsafe(block) for block in _blocks(validation[0])])
        macro_f1 = compute_figures(p_unsafe, validation[1], threshold=PLAIN_THRESHOLD)["macro_f1"] or 0.0
        if macro_f1 > best_macro_f1:
            best, best_macro_f1, chosen = probe, macro_f1, penalty
    assert best is not None
    return best, f"linear probe on {len(train[1])} frames: C {chosen:g}, validation macro-F1 {best_macro_f1:.3f}"


def _blocks(features: Features) -> Iterator[np.ndarray]:
    frames, hidden = features.shape
    step = max(1, _BLOCK // hidden)
    yield from (features[start : start + step] for start in range(0, frames, step))


@dataclass(frozen=True)
class _Standardized:
    """Features less their `mean` and over their `spread`, both of shape (hidden,); `kept` are all blocks, where few."""

    features: Features
    mean: np.ndarray
    spread: np.ndarray
    kept: list[np.ndarray] | None

    @classmethod
    def of(cls, features: Features) -> "_Standardized":
        frames, hidden = features.shape
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in _blocks(features)) / frames
        variance = sum(np.square(block - mean).sum(axis=0) for block in _blocks(features)) / frames
        rounding = np.finfo(np.float64).eps * frames
        constant = variance <= rounding * variance + (rounding * mean) ** 2  # as StandardScaler tells it
        spread = np.where(constant, 1.0, np.sqrt(variance))
        found = cls(features, mean.astype(np.float32), spread.astype(np.float32), None)
        return replace(found, kept=list(found.blocks())) if frames * hidden <= _KEPT else found

    def blocks(self) -> Iterator[np.ndarray]:
        """Return the standardised features, some frames at a time, in fp32."""
        if self.kept is not None:
            yield from self.kept
            return
        for block in _blocks(self.features):
            centred = np.subtract(block, self.mean, dtype=np.float32)
            yield np.divide(centred, self.spread, out=centred)


def _fit(standardized: _Standardized, truth: np.ndarray, penalty: float, *, balance_labels: bool) -> LinearProbe:
    """Return the probe, on features as they are, that minimises the mean log loss and 1 / penalty times the weights."""
    counts = np.bincount(truth, minlength=2)
    weights = len(truth) / (2 * counts)[truth] if balance_labels else np.ones(len(truth))
    strength = 1 / (penalty * weights.sum())

    def loss_and_gradient(place: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient, start = 0.0, np.zeros(len(place)), 0
        for block in standardized.blocks():
            rows = slice(start, start := start + len(block))
            logits = (block @ place[:-1].astype(np.float32) + np.float32(place[-1])).astype(np.float64)
            loss += float(weights[rows] @ (np.logaddexp(0, logits) - truth[rows] * logits))
            pulls = weights[rows] * (expit(logits) - truth[rows])
            gradient[:-1] += block.T @ pulls.astype(np.float32)
            gradient[-1] += pulls.sum()
        pulled = strength * np.r_[place[:-1], 0.0]
        return loss / weights.sum() + pulled @ place / 2, gradient / weights.sum() + pulled

    start = np.zeros(standardized.features.shape[1] + 1)
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=_SOLVER).x
    weight = found[:-1] / standardized.spread
    return LinearProbe(weight, np.asarray(found[-1] - standardized.mean @ weight))
