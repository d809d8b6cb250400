"""What the audit says of cameras, days and splits: who shows what, and where a camera alone tells the label."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_prep.clips.records import DAY, SPLIT_ORIGINS, Clip, natural_key
from data_prep.labels import LABELS, SPLITS, TEST

NEARLY = 0.95  # of a camera's clips, from which on its picture alone is taken to tell the label
FEWEST_CLIPS = 5  # of a camera; fewer may share a label by chance
NOTHING_KNOWN: dict[str, Any] = {
    "classes": {},
    "cameras": {},
    "clips_without_camera": None,
    "split_from": None,
    "cameras_that_tell_the_label": [],
    "background_probe": None,
}  # what an audit of an earlier version says


def audit_cameras(clips: Iterable[Clip], data_of: Callable[[Clip], Path] | None = None) -> dict[str, Any]:
    """Return the audit's part on cameras: who shows what, how clips were split, and where a camera tells the label.

    `cameras` counts each one's clips with frames by label and by split. `split_from` counts clips by what their split
    follows from, and the days of a camera that went to each. `cameras_that_tell_the_label` are those of at least
    FEWEST_CLIPS clips of which NEARLY all have one label, unless that is so of all clips; where there are any,
    `background_probe` is probe_background's, given where frames lie. Raises InputError as that does.
    """
    clips = [clip for clip in clips if clip.has_frames]
    of_camera: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: natural_key(clip.camera or "")):
        if clip.camera is not None:
            of_camera[clip.camera].append(clip)
    telling = [found for camera, its in of_camera.items() if (found := _tells(camera, its, clips))]
    return {
        "classes": {
            clip.source_class: {"label": clip.label, "description": clip.description}
            for clip in sorted(clips, key=lambda clip: natural_key(clip.source_class))
            if clip.own_class
        },
        "cameras": {camera: _counted(its) for camera, its in of_camera.items()},
        "clips_without_camera": sum(clip.camera is None for clip in clips),
        "split_from": _split_origins(clips),
        "cameras_that_tell_the_label": telling,
        "background_probe": _probe(clips, data_of) if telling and data_of else None,
    }


def _probe(clips: list[Clip], data_of: Callable[[Clip], Path]) -> dict[str, Any] | None:
    from data_prep.clips.background import probe_background  # numpy: who only reads an audit needs none

    return probe_background(clips, data_of)


def _counted(clips: list[Clip]) -> dict[str, Any]:
    return {
        "clips": len(clips),
        "labels": {label: sum(clip.label == label for clip in clips) for label in LABELS},
        "splits": {split: sum(clip.split == split for clip in clips) for split in SPLITS},
    }


def _tells(camera: str, its: list[Clip], clips: list[Clip]) -> dict[str, Any] | None:
    label, count = Counter(clip.label for clip in its).most_common(1)[0]
    everywhere = sum(clip.label == label for clip in clips) / len(clips)
    if len(its) < FEWEST_CLIPS or count < NEARLY * len(its) or everywhere >= NEARLY:
        return None
    return {"camera": camera, "label": label, "clips": count, "of": len(its)}


def _split_origins(clips: list[Clip]) -> dict[str, Any]:
    by_day = {(clip.camera, clip.day, clip.split) for clip in clips if clip.split_from == DAY}
    return {
        **{origin: sum(clip.split_from == origin for clip in clips) for origin in SPLIT_ORIGINS},
        "camera_days": {split: sum(each == split for _, _, each in by_day) for split in SPLITS},
    }


def cameras_in_words(audit: dict[str, Any]) -> list[str]:
    """Return the lines to read of the audit's part on cameras, none where nothing is known."""
    return [*_split_in_words(audit["split_from"]), *_counts_in_words(audit), *_telling_in_words(audit)]


def _split_in_words(origins: dict[str, Any] | None) -> list[str]:
    if origins is None or not origins["day"] + origins["content"] + origins["copy"]:
        return []
    days = origins["camera_days"]
    parts = []
    if origins["day"]:
        parts.append(
            f"{origins['day']} clips by the day of their camera, {days[TEST]} of {sum(days.values())} such days test"
        )
    if origins["content"]:
        parts.append(f"{origins['content']} by their content")
    if origins["copy"]:
        parts.append(f"{origins['copy']} with a copy of theirs")
    return [
        f"split without train and test folders: {', '.join(parts)}; by a hash, so that clips added "
        "later move none but copies of theirs"
    ]


def _counts_in_words(audit: dict[str, Any]) -> list[str]:
    if not audit["cameras"]:
        return []
    lines = [
        f"  {camera}: {counts['clips']} clips, "
        + ", ".join(f"{counts['labels'][label]} {label}" for label in LABELS)
        + f"; {counts['splits'][TEST]} in test"
        for camera, counts in audit["cameras"].items()
    ]
    unknown = audit["clips_without_camera"]
    return [f"cameras: {len(lines)}" + (f", {unknown} clips of an unknown one" if unknown else ""), *lines]


def _telling_in_words(audit: dict[str, Any]) -> list[str]:
    if not (telling := audit["cameras_that_tell_the_label"]):
        return []
    told = ", ".join(f"{each['camera']} ({each['clips']} of {each['of']} {each['label']})" for each in telling)
    lines = [
        f"  cameras that nearly tell the label: {told}; it may be read off the background there, so hold whole cameras "
        "out (push_dataset.py --validation camera), or film the other label with them"
    ]
    if probe := audit["background_probe"]:
        lines.append(
            f"  a probe that sees the edges of frames alone tells the label of {probe['clips']} clips with a balanced "
            f"accuracy of {probe['balanced_accuracy']:.3f}; 0.5 is chance"
        )
    return lines
