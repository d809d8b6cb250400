"""What the clips hold, before anyone trusts a figure made of them: counts, identical contents, leaks."""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from data_prep.clips.camera_audit import NOTHING_KNOWN, audit_cameras
from data_prep.clips.records import STATUSES, Clip, natural_key
from data_prep.errors import InputError
from data_prep.files import sha256_of_file
from data_prep.labels import LABELS, SOURCE_CLASSES, SPLITS, TEST, TRAIN, rows_file

AUDIT_FILE = "audit.json"
SCHEMA_VERSION = 4
# 2 counts no faults, and lists pairs of clips that look alike in the place of groups; 3 knows no cameras
READ_VERSIONS = (2, 3, 4)


def _counts(clips: list[Clip]) -> dict[str, int]:
    return {"clips": len(clips), "frames": sum(clip.frames for clip in clips)}


def count_split(clips: Iterable[Clip]) -> dict[str, Any]:
    """Return one split's clips and frames: in all, by label and by source class, its clips by status, its faults."""
    clips = list(clips)
    usable = [clip for clip in clips if clip.has_frames]
    classes = [source_class.folder for source_class in SOURCE_CLASSES]
    if own := {clip.source_class for clip in clips if clip.own_class}:
        classes = sorted(own, key=natural_key)
    return {
        **_counts(usable),
        "labels": {label: _counts([clip for clip in usable if clip.label == label]) for label in LABELS},
        "source_classes": {name: _counts([clip for clip in usable if clip.source_class == name]) for name in classes},
        "frames_a_clip": _spread([clip.frames for clip in usable]),
        "status": {status: sum(clip.status == status for clip in clips) for status in STATUSES if status != "pending"},
        "faults": count_faults(clips),
    }


def count_faults(clips: Iterable[Clip]) -> dict[str, dict[str, int]]:
    """Return of each kind of fault in how many clips it was found, and how often in all of them, by its words.

    Clips of an extractor that counted none are left out.
    """
    found: dict[str, list[int]] = defaultdict(list)
    for clip in clips:
        for fault, count in clip.faults or ():
            found[fault].append(count)
    return {fault: {"clips": len(found[fault]), "occurrences": sum(found[fault])} for fault in sorted(found)}


def _spread(counts: list[int]) -> dict[str, float] | None:
    return {"min": min(counts), "median": median(counts), "max": max(counts)} if counts else None


def by_content(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Return the clips by their content's SHA-256, each group and the groups in natural order of their paths.

    Clips of which no frame could be had are left out: nothing can be learnt from an empty file, so nothing leaks.
    """
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: natural_key(clip.path)):
        if clip.has_frames and clip.sha256 is not None:
            groups[clip.sha256].append(clip)
    return groups


def conflicts_of(clips: Iterable[Clip]) -> dict[str, bool]:
    """Say of clips that are one and the same, or look it, whether they stand in both splits and under both labels."""
    clips = list(clips)
    return {
        "across_splits": len({clip.split for clip in clips}) > 1,
        "both_labels": len({clip.label for clip in clips}) > 1,
    }


def identical_groups(clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """Return the groups of clips of identical content that have frames, in natural order of their first path.

    Each group says its SHA-256, its clips' paths, whether it stands in both splits and whether under both labels.
    """
    return [
        {"sha256": sha256, "paths": [clip.path for clip in group], **conflicts_of(group)}
        for sha256, group in by_content(clips).items()
        if len(group) > 1
    ]


def _leaking(clips: Iterable[Clip], split: str) -> list[tuple[Clip, dict[str, bool]]]:
    """Return a split's clips whose content stands in both splits or under both labels, and which of the two.

    They are in natural order of their paths.
    """
    groups = ((group, conflicts_of(group)) for group in by_content(clips).values())
    leaking = [(clip, where) for group, where in groups if any(where.values()) for clip in group if clip.split == split]
    return sorted(leaking, key=lambda each: natural_key(each[0].path))


def twins_of_test_clips(clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """Return the test clips whose content stands in train, or under the other label anywhere, and which of the two.

    They are in natural order of their paths, and stay in the test split, which is as published; a figure over the
    others says more.
    """
    return [
        {
            "path": clip.path,
            "clip": clip.video_id,
            "in_train": where["across_splits"],
            "other_label": where["both_labels"],
        }
        for clip, where in _leaking(clips, TEST)
    ]


def leaks_in_train(clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """Return the training clips that had better not be learnt from, with the frames they have and the reason.

    They are those whose content stands in test, too, and those whose content stands under both labels in the data set;
    in natural order of their paths.
    """
    return [
        {
            "path": clip.path,
            "frames": clip.frames,
            "in_test": where["across_splits"],
            "both_labels": where["both_labels"],
        }
        for clip, where in _leaking(clips, TRAIN)
    ]


def audit_clips(
    clips: Iterable[Clip],
    near_identical: list[dict[str, Any]],
    data_of: Callable[[Clip], Path] | None = None,
) -> dict[str, Any]:
    """Return the audit of all clips as a JSON object, the groups of clips that look alike included as they are.

    `fps` is how many frames a second were taken, None where clips differ in it; `splits` counts; `identical_clips`,
    `test_clips_with_twins` and `leaks_in_train` tell of copies; `damaged` lists the clips that are partial or failed,
    with the reason, `faults` counts what was damaged, and `single_frame_clips` lists those of one sample alone.
    `extracted_by_earlier_version` counts clips whose samples could be wrong and whose faults aren't counted. The rest
    is audit_cameras', which `data_of` tells where frames lie.
    """
    clips = sorted(clips, key=lambda clip: natural_key(clip.path))
    rates = {clip.settings.fps for clip in clips}
    return {
        "fps": rates.pop() if len(rates) == 1 else None,
        "splits": {split: count_split(clip for clip in clips if clip.split == split) for split in SPLITS},
        "identical_clips": identical_groups(clips),
        "test_clips_with_twins": twins_of_test_clips(clips),
        "leaks_in_train": leaks_in_train(clips),
        "near_identical_clips": near_identical,
        "damaged": [
            {"path": clip.path, "split": clip.split, "status": clip.status, "reason": clip.reason}
            for clip in clips
            if clip.status in ("partial", "failed")
        ],
        "faults": count_faults(clips),
        "extracted_by_earlier_version": sum(clip.is_of_earlier_extractor for clip in clips),
        "single_frame_clips": [clip.path for clip in clips if clip.frames == 1],
        **audit_cameras(clips, data_of),
    }


def read_audit(folder: Path) -> dict[str, Any] | None:
    """Return the audit that build_jsonl.py left in a data folder, None where there is none.

    Rows changed by hand since then are said on stderr, and their audit is None, too: it isn't of them. Raises
    InputError for a damaged file.
    """
    file = folder / AUDIT_FILE
    if not file.is_file():
        return None
    try:
        audit: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = audit["schema_version"] in READ_VERSIONS
        built = {split: entry["sha256"] for split, entry in audit["jsonl"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{file}: damaged; run data_prep/build_jsonl.py again") from None
    if known and all(sha256_of_file(folder / rows_file(split)) == sha256 for split, sha256 in built.items()):
        return of_today(audit)
    print(f"warning: {file.name} isn't of these rows, so it is left out; build_jsonl.py makes both", file=sys.stderr)
    return None


def of_today(audit: dict[str, Any]) -> dict[str, Any]:
    """Return an audit of an earlier version with what it doesn't know as such, and its pairs made groups."""
    audit = {**NOTHING_KNOWN, **audit}
    return _with_groups(audit) if audit["schema_version"] == 2 else audit


def _with_groups(audit: dict[str, Any]) -> dict[str, Any]:
    """Return an audit with the pairs of clips that look alike, which version 2 lists, made groups."""
    groups: list[dict[str, Any]] = []
    for pair in audit["near_identical_clips"]:
        joined = [group for group in groups if set(group["paths"]) & set(pair["paths"])]
        paths = set(pair["paths"]).union(*(group["paths"] for group in joined))
        several = [pair, *joined]
        groups = [group for group in groups if group not in joined]
        groups.append(
            {
                "paths": sorted(paths, key=natural_key),
                "clips": len(paths),
                "different_bits": max(each["different_bits"] for each in several),
                **{key: any(each[key] for each in several) for key in ("across_splits", "both_labels")},
            }
        )
    return {**audit, "near_identical_clips": sorted(groups, key=lambda group: natural_key(group["paths"][0]))}
