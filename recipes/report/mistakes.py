"""The worst mistakes of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.labels import UNSAFE

MOST_MISTAKES = 12


def worst_mistakes(frames: Sequence[Mapping[str, Any]], most: int = MOST_MISTAKES) -> list[dict[str, Any]]:
    """Return the frames that were answered wrong with the most confidence, the worst of each clip, the worst first.

    `frames` are those of predictions.jsonl. Each result has the frame's `row` among them, and how many of its clip's
    `frames_wrong` there are of `frames_in_clip`.
    """
    by_clip: dict[str, list[dict[str, Any]]] = {}
    in_clip: dict[str, int] = {}
    for row, frame in enumerate(frames):
        in_clip[frame["clip"]] = in_clip.get(frame["clip"], 0) + 1
        if frame["answer"] != frame["label"]:
            by_clip.setdefault(frame["clip"], []).append({**frame, "row": row})
    worst = [
        {**max(wrong, key=_confidence), "frames_wrong": len(wrong), "frames_in_clip": in_clip[clip]}
        for clip, wrong in by_clip.items()
    ]
    return sorted(worst, key=lambda frame: (-_confidence(frame), frame["row"]))[:most]


def _confidence(frame: Any) -> float:
    p_unsafe: float = frame["p_unsafe"]
    return p_unsafe if frame["answer"] == UNSAFE else 1 - p_unsafe


def when(sample: int, fps: float | None) -> str:
    """Say where in its clip a frame is: the second at which its slot begins, or its number without a rate."""
    return f"sample {sample}" if fps is None else "second " + f"{sample / fps:.3f}".rstrip("0").rstrip(".")
