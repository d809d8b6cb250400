"""What the drawn scenes' generator says of the demo's clips, joined with what a run answers about their frames."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.clips.records import Clip, frame_name


@dataclass(frozen=True)
class Mark:
    """What the generator says of a clip: how many leading samples don't show its behaviour yet, and what it copies."""

    hidden_samples: int
    copy_of: str | None


def read_marks(path: Path) -> dict[str, Mark]:
    """Read what the generator says of each clip, by the clip's path. Nothing where there is no file or it says none."""
    if not path.is_file():
        return {}
    clips = json.loads(path.read_text(encoding="utf-8"))["clips"]
    return {name: Mark(of["hidden_samples"], of["copy_of"]) for name, of in clips.items() if isinstance(of, dict)}


def join_mark(prediction: Mapping[str, Any], clips: Sequence[Clip], marks: Mapping[str, Mark]) -> dict[str, Any]:
    """Return a prediction of the test split with its image's path and its clip's mark.

    `hidden` says whether the frame is of the seconds before the behaviour shows, None where that isn't known: marks are
    of samples at one a second.
    """
    (clip,) = [clip for clip in clips if clip.split == "test" and clip.video_id == prediction["clip"]]
    mark = marks.get(clip.path)
    return {
        "image": f"{clip.folder}/{frame_name(prediction['sample'])}",
        **prediction,
        "hidden": None if mark is None or clip.settings.fps != 1 else prediction["sample"] < mark.hidden_samples,
        "copy_of": None if mark is None else mark.copy_of,
    }


def by_visibility(frames: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]] | None:
    """Count frames, and wrong ones among them, by whether the behaviour shows; None where that isn't known of all."""
    if any(frame["hidden"] is None for frame in frames):
        return None
    counts = {}
    for name, hidden in (("hidden", True), ("visible", False)):
        answers = [frame["answer"] == frame["label"] for frame in frames if frame["hidden"] is hidden]
        counts[name] = {"n": len(answers), "wrong": answers.count(False)}
    return counts
