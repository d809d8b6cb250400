"""Figures to report.json. Imports no torch."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from data_prep.labels import LABELS, SOURCE_CLASSES
from recipes.metrics import POSITIVE, class_ids, compute_figures, confusion_matrix

SCHEMA_VERSION = 1
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "evaluate", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def frame_results(
    p_unsafe: np.ndarray, responses: Sequence[str], source_classes: Sequence[str], *, threshold: float
) -> dict[str, Any]:
    """Return the report's frame-level part from P(UNSAFE), labels and source classes, all of length n.

    A frame is answered UNSAFE from `threshold` on. Figures that the data don't define are None.
    """
    truth = class_ids(responses)
    answers = (p_unsafe >= threshold).astype(int)
    return {
        "results": {"frame": _with_count(compute_figures(p_unsafe, truth, threshold=threshold), len(truth))},
        "confusion_matrix": confusion_matrix(answers, truth),
        "per_source_class": _per_source_class(answers, truth, source_classes),
        "baselines": {"always_unsafe": _with_count(_always_unsafe(truth), len(truth))},
    }


def _with_count(figures: dict[str, float | None], count: int) -> dict[str, Any]:
    return {"n": count, **figures}


def _always_unsafe(truth: np.ndarray) -> dict[str, float | None]:
    return compute_figures(np.full(len(truth), float(POSITIVE)), truth, threshold=0.5)


def _per_source_class(answers: np.ndarray, truth: np.ndarray, source_classes: Sequence[str]) -> dict[str, Any]:
    of_row = np.asarray(source_classes)
    table = {}
    for source_class in SOURCE_CLASSES:
        rows = of_row == source_class.folder
        if rows.any():
            correct = float((answers[rows] == truth[rows]).mean())
            table[source_class.folder] = {"label": source_class.label, "n": int(rows.sum()), "accuracy": correct}
    return table


def predictions(rows: dict[str, Sequence[Any]], p_unsafe: np.ndarray, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Return one record a frame: where it comes from, its label, P(UNSAFE) and the answer."""
    columns = zip(rows["clip"], rows["sample"], rows["source_class"], rows["response"], p_unsafe, answers, strict=True)
    return [
        {
            "clip": clip,
            "sample": sample,
            "source_class": source_class,
            "label": label,
            "p_unsafe": float(p),
            "answer": answer,
        }
        for clip, sample, source_class, label, p, answer in columns
    ]


def as_table(report: dict[str, Any]) -> str:
    """Lay out the report's headline figures as text, the adapter beside always answering UNSAFE."""
    frame, always = report["results"]["frame"], report["baselines"]["always_unsafe"]
    names = ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "macro_f1", "mcc", "auroc"]
    lines = [f"{'figure, ' + str(frame['n']) + ' frames':<24}{'adapter':>10}{'always UNSAFE':>16}"]
    lines += [f"{name:<24}{_number(frame[name]):>10}{_number(always[name]):>16}" for name in names]
    matrix = report["confusion_matrix"]
    lines += [f"{label} frames answered " + ", ".join(f"{a} {matrix[label][a]}" for a in LABELS) for label in LABELS]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
