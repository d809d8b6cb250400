"""Figures of an evaluation, as report.json holds them. Imports no torch."""

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from data_prep.hub.source import FramesSource
from data_prep.labels import LABELS, SOURCE_CLASSES
from data_prep.rows.dataset import TEST, TRAIN, count_splits
from recipes.metrics.calibration import calibration
from recipes.metrics.comparison import compare
from recipes.metrics.figures import POSITIVE, class_ids, confusion_matrix
from recipes.metrics.intervals import LEAST_CLIPS, at_most_without_error, interval
from recipes.metrics.judged import Judged, Sample
from recipes.metrics.resampling import draw_clips
from recipes.metrics.threshold import PLAIN_THRESHOLD

SCHEMA_VERSION = 5
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "evaluate", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def split_figures(
    rows: Mapping[str, Sequence[Any]],
    p_unsafe: np.ndarray,
    others: Mapping[str, np.ndarray | None],
    *,
    threshold: float,
    not_clean: Collection[str] | None = None,
    prior: float | None = None,
) -> dict[str, Any]:
    """Return the report's figures of one split from P(UNSAFE) of its n frames.

    `rows` holds the columns `response`, `clip` and `source_class`, of length n. The adapter answers UNSAFE from
    `threshold` on; `others`, by name, answer the same frames from 0.5, None where one wasn't asked. `not_clean` names
    the clips that the audit found a twin of, None where there was no audit. With a `prior`, for which P(UNSAFE) and
    threshold are given, frames are weighed so that UNSAFE has that share; what counts frames or clips, and McNemar's
    test, still does. Figures that the data don't define are None. Every figure has its 95 % interval from a bootstrap
    over clips beside it; `clips` counts those with frames of each label.
    """
    truth, names = class_ids(rows["response"]), np.asarray(rows["clip"])
    clips = np.unique(names, return_inverse=True)[1]

    def judge(scores: np.ndarray, at: float) -> Judged:
        return Judged.of(scores, truth, clips, threshold=at, prior=prior)

    adapter = judge(p_unsafe, threshold)
    asked = {name: None if scores is None else judge(scores, PLAIN_THRESHOLD) for name, scores in others.items()}
    always = judge(np.full(len(truth), float(POSITIVE)), PLAIN_THRESHOLD)
    baselines = {name: other and other.results() for name, other in {**asked, "always_unsafe": always}.items()}
    right = (p_unsafe >= threshold) == truth
    return {
        "clips": {label: len(np.unique(clips[truth == LABELS.index(label)])) for label in LABELS},
        "results": adapter.results(),
        "at_plain_threshold": {"value": PLAIN_THRESHOLD, **adapter.at(PLAIN_THRESHOLD).results()},
        "confusion_matrix": confusion_matrix((p_unsafe >= threshold).astype(int), truth),
        "per_source_class": _per_source_class(right, clips, np.asarray(rows["source_class"])),
        "calibration": calibration(p_unsafe, truth, prior=prior),
        "clean_subset": None if not_clean is None else _clean_subset(adapter.frame, names, not_clean),
        "baselines": baselines,
        "comparison": {name: other and compare(adapter, other) for name, other in asked.items()},
    }


def _clean_subset(adapter: Sample, names: np.ndarray, not_clean: Collection[str]) -> dict[str, Any]:
    """Return the results of the clips without a twin in train or under the other label, None where none is left."""
    kept = ~np.isin(names, list(not_clean))
    results = None
    if kept.any():
        p_unsafe, truth = adapter.scores.p_unsafe[kept], adapter.scores.truth[kept]
        clean = Judged.of(p_unsafe, truth, names[kept], threshold=adapter.threshold, prior=adapter.prior)
        results = clean.results()
    return {"clips_left_out": np.unique(names[~kept]).tolist(), "results": results}


def about_data(source: FramesSource, split: str) -> dict[str, Any]:
    """Return `data`, each split's counts and the audit's findings in numbers, and `excluded`, None without an audit.

    The latter lists the clips of `split` of which no frame could be had.
    """
    audit = source.audit
    counts = {name: asdict(counted) for name, counted in count_splits(source.dataset).items()}
    if audit is None:
        return {"data": {"splits": counts, "audit": None}, "excluded": None}
    published = TEST if split == TEST else TRAIN  # validation is a part of the published train split
    groups, alike = audit["identical_clips"], audit["near_identical_clips"]
    findings = {
        "identical_groups": len(groups),
        "across_splits": sum(group["across_splits"] for group in groups),
        "under_both_labels": sum(group["both_labels"] for group in groups),
        "test_clips_with_twins": len(audit["test_clips_with_twins"]),
        "left_out_of_train": len(audit["left_out_of_train"]),
        "leaks_kept_in_train": len(audit["leaks_in_train"]) - len(audit["left_out_of_train"]),
        "groups_that_look_alike": len(alike),
        "clips_that_look_alike": sum(group["clips"] for group in alike),
        "damaged_clips": len(audit["damaged"]),
        "single_frame_clips": len(audit["single_frame_clips"]),
    }
    excluded = [
        {"path": clip["path"], "reason": clip["reason"]}
        for clip in audit["damaged"]
        if clip["status"] == "failed" and clip["split"] == published
    ]
    return {"data": {"splits": counts, "audit": findings}, "excluded": excluded}


def clips_not_clean(source: FramesSource, split: str) -> set[str] | None:
    """Return the clips of the test split that have a twin, by the audit; None for other splits and without an audit."""
    if source.audit is None or split != TEST:
        return None
    return {each["clip"] for each in source.audit["test_clips_with_twins"]}


def _per_source_class(right: np.ndarray, clips: np.ndarray, source_classes: np.ndarray) -> dict[str, Any]:
    """Return accuracy by source class: of its frames, with the interval from a bootstrap over its clips.

    The interval of a single clip is None. Where no frame was answered wrong, `error_at_most` is which share of clips
    may go wrong all the same.
    """
    table = {}
    for source_class in SOURCE_CLASSES:
        rows = source_classes == source_class.folder
        if rows.any():
            _, clip_of_row = np.unique(clips[rows], return_inverse=True)
            frames = np.bincount(clip_of_row)
            times = draw_clips(len(frames))
            accuracy = times @ np.bincount(clip_of_row, weights=right[rows]) / (times @ frames)
            table[source_class.folder] = {
                "label": source_class.label,
                "n": int(rows.sum()),
                "clips": len(frames),
                "accuracy": float(right[rows].mean()),
                "interval": interval(accuracy) if len(frames) >= LEAST_CLIPS else None,
                "error_at_most": at_most_without_error(len(frames)) if right[rows].all() else None,
            }
    return table
