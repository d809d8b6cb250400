"""Figures to report.json. Imports no torch."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.clips import frame_name
from data_prep.frames_dataset import TEST, TRAIN
from data_prep.frames_source import FramesSource
from data_prep.labels import LABELS, SOURCE_CLASSES
from recipes.comparison import compare_answers, each_clip_its_own, mcnemar_in_words
from recipes.intervals import Scores, draw_clips, interval, intervals
from recipes.metrics import POSITIVE, calibration, class_ids, compute_figures, confusion_matrix, mean_by_clip
from recipes.safety_record import PLAIN_THRESHOLD, SafetyRecord

SCHEMA_VERSION = 3
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "evaluate", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def folder_of_report(folder: Path, record: SafetyRecord, source: FramesSource, split: str) -> Path:
    """Return `<adapter>/eval` for the test split of the adapter's own data, a folder below it for anything else."""
    if split == "test" and source.content_hash == record.dataset_hash:
        return folder / "eval"
    return folder / "eval" / f"{source.id.replace('/', '--').strip('-.')}-{source.content_hash[:8]}-{split}"


def split_figures(
    rows: Mapping[str, Sequence[Any]], p_unsafe: np.ndarray, p_unsafe_of_base: np.ndarray | None, *, threshold: float
) -> dict[str, Any]:
    """Return the report's figures of one split from P(UNSAFE) of its n frames, with the adapter and without.

    `rows` holds the columns `response`, `clip` and `source_class`, of length n. The adapter answers UNSAFE from
    `threshold` on, the base without it from 0.5; `p_unsafe_of_base` is None where the base wasn't asked. Figures that
    the data don't define are None. Every figure has its 95 % interval from a bootstrap over clips beside it.
    """
    truth, clips = class_ids(rows["response"]), rows["clip"]
    answers = (p_unsafe >= threshold).astype(int)
    always = np.full(len(truth), float(POSITIVE))
    base = comparison = None
    if p_unsafe_of_base is not None:
        base = _results(p_unsafe_of_base, truth, clips, PLAIN_THRESHOLD)
        comparison = compare_answers((p_unsafe, threshold), (p_unsafe_of_base, PLAIN_THRESHOLD), truth, clips)
    return {
        "results": _results(p_unsafe, truth, clips, threshold),
        "confusion_matrix": confusion_matrix(answers, truth),
        "per_source_class": _per_source_class(answers == truth, clips, rows["source_class"]),
        "calibration": calibration(p_unsafe, truth),
        "baselines": {"base_model": base, "always_unsafe": _results(always, truth, clips, PLAIN_THRESHOLD)},
        "comparison": {"base_model": comparison},
    }


def _results(p_unsafe: np.ndarray, truth: np.ndarray, clips: Sequence[str], threshold: float) -> dict[str, Any]:
    """Return the figures of single frames and of whole clips; a clip is judged by the mean of its frames' P(UNSAFE)."""
    of_clips = mean_by_clip(p_unsafe, truth, clips)
    return {
        "frame": _figures(Scores.of(p_unsafe, truth, clips), threshold),
        "clip": _figures(each_clip_its_own(*of_clips), threshold) if of_clips else None,
    }


def _figures(scores: Scores, threshold: float) -> dict[str, Any]:
    return {
        "n": len(scores.truth),
        **compute_figures(scores.p_unsafe, scores.truth, threshold=threshold),
        "intervals": intervals(scores, threshold=threshold),
    }


def _per_source_class(right: np.ndarray, clips: Sequence[str], source_classes: Sequence[str]) -> dict[str, Any]:
    """Return accuracy by source class: of its frames, with the interval from a bootstrap over its clips."""
    of_row = np.asarray(source_classes)
    table = {}
    for source_class in SOURCE_CLASSES:
        rows = of_row == source_class.folder
        if rows.any():
            _, clip_of_row = np.unique(np.asarray(clips)[rows], return_inverse=True)
            frames = np.bincount(clip_of_row)
            times = draw_clips(len(frames))
            accuracy = times @ np.bincount(clip_of_row, weights=right[rows]) / (times @ frames)
            table[source_class.folder] = {
                "label": source_class.label,
                "n": int(rows.sum()),
                "clips": len(frames),
                "accuracy": float(right[rows].mean()),
                "interval": interval(accuracy),
            }
    return table


def predictions(
    rows: Mapping[str, Sequence[Any]], p_unsafe: np.ndarray, answers: Sequence[str], split: str
) -> list[dict[str, Any]]:
    """Return one record a frame: where it comes from, its label, P(UNSAFE) and the answer.

    `image` is the frame's path below its data folder, as extract_frames.py lays it out.
    """
    columns = zip(rows["clip"], rows["sample"], rows["source_class"], rows["response"], p_unsafe, answers, strict=True)
    folder = TEST if split == TEST else TRAIN  # validation is a part of the published train split
    return [
        {
            "image": f"frames/{folder}/{label.lower()}/{clip}/{frame_name(sample)}",
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
    """Lay out the report's headline figures as text: the adapter's beside its base's and always answering UNSAFE."""
    adapter, baselines = report["results"], report["baselines"]
    columns = [
        ("adapter", "frames", adapter["frame"]),
        ("adapter", "clips", adapter["clip"]),
        ("base model", "frames", (baselines["base_model"] or {}).get("frame")),
        ("always UNSAFE", "frames", baselines["always_unsafe"]["frame"]),
    ]
    names = ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "macro_f1", "mcc", "auroc"]
    lines = [
        _line("figure", [who for who, _, _ in columns]),
        _line("", [f"{figures['n']} {unit}" if figures else "-" for _, unit, figures in columns]),
        *(_line(name, [_number((figures or {}).get(name)) for _, _, figures in columns]) for name in names),
    ]
    after = 2 + names.index("macro_f1") + 1
    lines.insert(after, _line("  95 % interval", [_range(figures, "macro_f1") for _, _, figures in columns]))
    matrix = report["confusion_matrix"]
    lines += [f"{label} frames answered " + ", ".join(f"{a} {matrix[label][a]}" for a in LABELS) for label in LABELS]
    if tested := (report["comparison"]["base_model"] or {}).get("mcnemar"):
        lines.append(mcnemar_in_words(tested, "adapter", "base"))
    return "\n".join(lines)


def _range(figures: Mapping[str, Any] | None, name: str) -> str:
    bounds = figures["intervals"][name] if figures else None
    return f"{bounds[0]:.3f}-{bounds[1]:.3f}" if bounds else "-"


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<18}" + "".join(f"{cell:>15}" for cell in cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
