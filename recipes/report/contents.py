"""What an evaluation says: the contents of report.json and predictions.jsonl. Imports no torch."""

import platform
from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from data_prep.files import to_root
from data_prep.hub.source import FramesSource
from data_prep.labels import LABELS, TEST, TRAIN
from data_prep.rows.content import count_splits
from data_prep.rows.joining import image_of
from recipes.adapter.safety_record import SafetyRecord
from recipes.metrics.calibration import calibration
from recipes.metrics.class_ids import POSITIVE, confusion_matrix
from recipes.metrics.comparison import compare
from recipes.metrics.judged import Judged
from recipes.metrics.prior_shift import BASE_PRIOR
from recipes.metrics.threshold import PLAIN_THRESHOLD
from recipes.report.evaluated_split import EvaluatedSplit
from recipes.report.groups import per_camera, per_source_class
from recipes.report.scored import Scored

SCHEMA_VERSION = 6
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "evaluate", "scikit-learn")


def make_report(split: EvaluatedSplit, scored: Scored) -> dict[str, Any]:
    """Return all of the report that follows from the scores and the data."""
    record = split.adapter.record
    return {
        "schema_version": SCHEMA_VERSION,
        **split_figures(scored, not_clean=clips_not_clean(split.source, split.name)),
        "threshold": {
            "value": scored.threshold,
            "in_training": record.threshold,
            "chosen": record.threshold_from,
            "prior": {"training": record.training_prior, "stated": scored.prior, **priors_of_baselines(record)},
        },
        **about_data(split.source, split.name),
    }


def describe(split: EvaluatedSplit, *, device: str, started: str) -> dict[str, Any]:
    """Say what was evaluated on what: everything that the figures depend on."""
    folder, record, source = split.adapter.folder, split.adapter.record, split.source
    return {
        "adapter": to_root(folder),
        "adapter_sha256": split.adapter.sha256(),
        "model": record.base_model,
        "revision": record.base_revision,
        "dataset": source.id,
        "dataset_revision": source.revision,
        "dataset_hash": source.content_hash,
        "split": split.name,
        "same_data_as_training": source.content_hash == record.dataset_hash,
        "blank_frames": split.blank_frames,
        "trained_with": asdict(record),
        "seed": record.seed,
        "versions": versions(),
        "device": device,
        "started": started,
        "finished": now(),
    }


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def priors_of_baselines(record: SafetyRecord) -> dict[str, float]:
    """Return the share of UNSAFE frames under which the P(UNSAFE) of base and linear probe are taken to be.

    The probe is fitted to the adapter's rows, weighed as they are for the adapter.
    """
    return {"base_model": BASE_PRIOR, "linear_probe": record.training_prior}


def split_figures(scored: Scored, *, not_clean: Collection[str] | None = None) -> dict[str, Any]:
    """Return the report's figures of one split.

    `not_clean` names the clips that the audit found a twin of, None where there was no audit. With a stated prior,
    frames are weighed so that UNSAFE has that share; what counts frames or clips, and McNemar's test, still does.
    Figures that the data don't define are None. Every figure has its 95 % interval from a bootstrap over clips beside
    it; `clips` counts those with frames of each label.
    """
    truth = scored.truth
    clips = np.unique(np.asarray(scored.clips), return_inverse=True)[1]

    def judge(p_unsafe: np.ndarray, threshold: float) -> Judged:
        return Judged.of(p_unsafe, truth, clips, threshold=threshold, prior=scored.prior)

    adapter = judge(scored.p_unsafe, scored.threshold)
    asked = {name: None if p is None else judge(p, PLAIN_THRESHOLD) for name, p in scored.baselines.items()}
    always = judge(np.full(len(truth), float(POSITIVE)), PLAIN_THRESHOLD)
    answers = (scored.p_unsafe >= scored.threshold).astype(int)
    return {
        "clips": {label: len(np.unique(clips[truth == LABELS.index(label)])) for label in LABELS},
        "results": adapter.results(),
        "at_plain_threshold": {"value": PLAIN_THRESHOLD, **adapter.at(PLAIN_THRESHOLD).results()},
        "confusion_matrix": confusion_matrix(answers, truth),
        "per_source_class": per_source_class(answers == truth, clips, truth, scored.source_classes),
        "per_camera": per_camera(answers == truth, clips, truth, scored.cameras),
        "calibration": calibration(scored.p_unsafe, truth, prior=scored.prior),
        "clean_subset": None if not_clean is None else _clean_subset(scored, not_clean),
        "baselines": {name: each and each.results() for name, each in {**asked, "always_unsafe": always}.items()},
        "comparison": {name: each and compare(adapter, each) for name, each in asked.items()},
    }


def _clean_subset(scored: Scored, not_clean: Collection[str]) -> dict[str, Any]:
    """Return the results of the clips without a twin in train or under the other label, None where none is left."""
    names = np.asarray(scored.clips)
    kept = ~np.isin(names, list(not_clean))
    results = None
    if kept.any():
        clean = Judged.of(
            scored.p_unsafe[kept],
            scored.truth[kept],
            names[kept],
            threshold=scored.threshold,
            prior=scored.prior,
        )
        results = clean.results()
    return {"clips_left_out": np.unique(names[~kept]).tolist(), "results": results}


def about_data(source: FramesSource, split: str) -> dict[str, Any]:
    """Return `data`, each split's counts and the audit's findings in numbers, and `excluded`, None without an audit.

    `data` also has what the user's own classes file says of classes. `excluded` lists the clips of `split` of which no
    frame could be had.
    """
    audit = source.audit
    counts = {name: asdict(counted) for name, counted in count_splits(source.dataset).items()}
    if audit is None:
        return {"data": {"splits": counts, "audit": None, "classes": {}}, "excluded": None}
    published = TEST if split == TEST else TRAIN  # validation is a part of the published train split
    groups, alike = audit["identical_clips"], audit["near_identical_clips"]
    findings = {
        "identical_groups": len(groups),
        "across_splits": sum(group["across_splits"] for group in groups),
        "under_both_labels": sum(group["both_labels"] for group in groups),
        "test_clips_with_twins": len(audit["test_clips_with_twins"]),
        "left_out_of_train": len(audit["left_out_of_train"]),
        "leaks_kept_in_train": len(audit["leaks_in_train"]) - len(audit["left_out_of_train"]),
        "frames_left_out_by_list": sum(each["frames"] for each in audit.get("left_out_by_list", [])),
        "groups_that_look_alike": len(alike),
        "clips_that_look_alike": sum(group["clips"] for group in alike),
        "damaged_clips": len(audit["damaged"]),
        "single_frame_clips": len(audit["single_frame_clips"]),
        "cameras_that_tell_the_label": audit["cameras_that_tell_the_label"],
        "background_probe": audit["background_probe"],
    }
    excluded = [
        {"path": clip["path"], "reason": clip["reason"]}
        for clip in audit["damaged"]
        if clip["status"] == "failed" and clip["split"] == published
    ]
    return {"data": {"splits": counts, "audit": findings, "classes": audit["classes"]}, "excluded": excluded}


def clips_not_clean(source: FramesSource, split: str) -> set[str] | None:
    """Return the clips of the test split that have a twin, by the audit; None for other splits and without an audit."""
    if source.audit is None or split != TEST:
        return None
    return {each["clip"] for each in source.audit["test_clips_with_twins"]}


def predictions(scored: Scored, split: str) -> list[dict[str, Any]]:
    """Return one record a frame, for predictions.jsonl: where it comes from, its label, P(UNSAFE) and the answer.

    `image` is the frame's path below its data folder, as extract_frames.py lays it out.
    """
    columns = (scored.clips, scored.samples, scored.source_classes, scored.labels, scored.p_unsafe, scored.answers)
    return [
        {
            "image": image_of(clip, sample, split=split, label=label),
            "clip": clip,
            "sample": sample,
            "source_class": source_class,
            "label": label,
            "p_unsafe": float(p),
            "answer": answer,
        }
        for clip, sample, source_class, label, p, answer in zip(*columns, strict=True)
    ]
