"""What the clips hold, before anyone trusts a figure made of them: counts, identical contents, leaks."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from data_prep.clips import STATUSES, Clip, natural_key
from data_prep.labels import LABELS, SOURCE_CLASSES, SPLITS, UNSAFE


def _counts(clips: list[Clip]) -> dict[str, int]:
    return {"clips": len(clips), "frames": sum(clip.frames for clip in clips)}


def count_split(clips: Iterable[Clip]) -> dict[str, Any]:
    """Return one split's clips and frames: in all, by label and by source class, and its clips by status."""
    clips = list(clips)
    usable = [clip for clip in clips if clip.has_frames]
    classes = [source_class.folder for source_class in SOURCE_CLASSES]
    return {
        **_counts(usable),
        "labels": {label: _counts([clip for clip in usable if clip.label == label]) for label in LABELS},
        "source_classes": {name: _counts([clip for clip in usable if clip.source_class == name]) for name in classes},
        "status": {status: sum(clip.status == status for clip in clips) for status in STATUSES if status != "pending"},
    }


def identical_groups(clips: Iterable[Clip]) -> list[dict[str, Any]]:
    """Return the groups of clips of identical content, in natural order of their first path.

    Each group says its SHA-256, its clips' paths, whether it stands in both splits and whether under both labels.
    """
    by_content: dict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: natural_key(clip.path)):
        by_content[clip.sha256].append(clip)
    return [
        {
            "sha256": sha256,
            "paths": [clip.path for clip in group],
            "across_splits": len({clip.split for clip in group}) > 1,
            "both_labels": len({clip.label for clip in group}) > 1,
        }
        for sha256, group in by_content.items()
        if len(group) > 1
    ]


def audit_clips(clips: Iterable[Clip]) -> dict[str, Any]:
    """Return the audit of all clips as a JSON object: `splits` and `identical_clips`."""
    clips = list(clips)
    return {
        "splits": {split: count_split(clip for clip in clips if clip.split == split) for split in SPLITS},
        "identical_clips": identical_groups(clips),
    }


def audit_in_words(audit: dict[str, Any]) -> str:
    """Return the audit as a few lines to read."""
    lines = [_split_in_words(split, counts) for split, counts in audit["splits"].items()]
    groups = audit["identical_clips"]
    lines.append(
        f"identical clips: {len(groups)} groups, {sum(group['across_splits'] for group in groups)} of them in both "
        f"splits, {sum(group['both_labels'] for group in groups)} under both labels"
    )
    if any(group["across_splits"] for group in groups):
        lines.append("  in both splits: the test figures partly measure memory, not skill")
    if any(group["both_labels"] for group in groups):
        lines.append("  under both labels: no model can get all of these right")
    return "\n".join(lines)


def _split_in_words(split: str, counts: dict[str, Any]) -> str:
    unsafe = counts["labels"][UNSAFE]["frames"] / counts["frames"] if counts["frames"] else 0.0
    damaged = "".join(f", {counts['status'][status]} {status}" for status in ("partial", "failed"))
    return f"{split}: {counts['clips']} clips, {counts['frames']} frames, {unsafe:.1%} of them {UNSAFE}{damaged}"
