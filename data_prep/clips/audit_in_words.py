"""The audit of the clips as lines to read."""

from typing import Any

from data_prep.clips.camera_audit import cameras_in_words
from data_prep.clips.records import earlier_in_words
from data_prep.errors import printable
from data_prep.labels import SAFE, SPLITS, TEST, TRAIN, UNSAFE

SHIFT = 0.1  # a smaller difference of shares isn't worth a line


def audit_in_words(audit: dict[str, Any]) -> str:
    """Return the audit as a few lines to read, with what they mean for the figures."""
    lines = [_split_in_words(split, counts) for split, counts in audit["splits"].items()]
    lines += _prior_shift_in_words(audit["splits"])
    lines += cameras_in_words(audit)
    lines += _damage_in_words(audit)
    groups = audit["identical_clips"]
    lines.append(
        f"identical clips: {len(groups)} groups, {sum(group['across_splits'] for group in groups)} of them in both "
        f"splits, {sum(group['both_labels'] for group in groups)} under both labels"
    )
    if any(group["across_splits"] for group in groups):
        lines.append("  in both splits: where they are learnt from, test figures partly measure memory, not skill")
    if any(group["both_labels"] for group in groups):
        lines.append("  under both labels: no model can get all of these right")
    if marked := audit["test_clips_with_twins"]:
        lines.append(
            f"  of the test clips {sum(each['in_train'] for each in marked)} stand in train, too, and "
            f"{sum(each['other_label'] for each in marked)} under the other label"
        )
    if leaks := audit["leaks_in_train"]:
        lines.append(
            f"  of the training clips {sum(each['in_test'] for each in leaks)} stand in test, too, and "
            f"{sum(each['both_labels'] for each in leaks)} under both labels"
        )
    lines += _look_alikes_in_words(audit["near_identical_clips"])
    if short := audit["single_frame_clips"]:
        lines.append(f"clips of a single frame: {len(short)}, the first {short[0]}")
    return "\n".join(map(printable, lines))


def _look_alikes_in_words(groups: list[dict[str, Any]]) -> list[str]:
    if not groups:
        return []
    clips = sum(group["clips"] for group in groups)
    first = groups[0]["paths"]
    others = f" and {len(first) - 2} more" if len(first) > 2 else ""
    return [
        f"clips that look alike: {clips} in {len(groups)} groups, {sum(group['across_splits'] for group in groups)} of "
        f"them across the splits, {sum(group['both_labels'] for group in groups)} under both labels; look at them, "
        f"nothing is left out for it; the first {' and '.join(first[:2])}{others}"
    ]


def _split_in_words(split: str, counts: dict[str, Any]) -> str:
    damaged = "".join(f", {counts['status'][status]} {status}" for status in ("partial", "failed"))
    spread = counts["frames_a_clip"]
    frames = f", {spread['min']} to {spread['max']} a clip" if spread else ""
    return (
        f"{split}: {counts['clips']} clips, {counts['frames']} frames{frames}, {_unsafe_share(counts):.1%} of them "
        f"{UNSAFE}{damaged}"
    )


def _damage_in_words(audit: dict[str, Any]) -> list[str]:
    """Say how many clips are damaged, by which faults, in all and by split, and which faults couldn't be counted."""
    splits = audit["splits"]
    partial, failed = (sum(splits[split]["status"][status] for split in SPLITS) for status in ("partial", "failed"))
    lines = [f"damaged clips: {partial} partial, {failed} failed{_faults_in_words(audit)}"] if partial + failed else []
    lines += [f"  {split}{_faults_in_words(splits[split])}" for split in SPLITS if splits[split]["faults"]]
    if no_frame := [clip for clip in audit["damaged"] if clip["status"] == "failed"]:
        lines.append(
            f"  failed, so in no split: {failed} clips, the first {no_frame[0]['path']} ({no_frame[0]['reason']})"
        )
    if earlier := audit["extracted_by_earlier_version"]:
        lines.append(
            f"{earlier_in_words(earlier)} and whose faults aren't counted; run data_prep/extract_frames.py again"
        )
    return lines


def _faults_in_words(counts: dict[str, Any]) -> str:
    each = [f"{fault} in {n['clips']} clips ({n['occurrences']})" for fault, n in counts["faults"].items()]
    return f": {', '.join(each)}" if each else ""


def _unsafe_share(counts: dict[str, Any]) -> float:
    share: float = counts["labels"][UNSAFE]["frames"] / counts["frames"] if counts["frames"] else 0.0
    return share


def _prior_shift_in_words(splits: dict[str, Any]) -> list[str]:
    """Say so where the share of UNSAFE frames differs by more than SHIFT between train and test."""
    train, test = (_unsafe_share(splits[split]) for split in (TRAIN, TEST))
    if abs(train - test) <= SHIFT:
        return []
    commoner = UNSAFE if train > test else SAFE
    return [
        f"  {UNSAFE} is {train:.0%} of train and {test:.0%} of test: learnt as it is, train makes {commoner} the "
        "likelier answer; balance_labels takes that out of the loss"
    ]
