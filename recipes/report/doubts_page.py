"""Doubtful frames as one self-contained page to look through and tick. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from scipy.special import expit

from data_prep.hub.source import FramesSource
from recipes.report.look import DARK, LIGHT, class_in_words
from recipes.report.mistakes import when
from recipes.report.neighbours import ClipsOfRows, strip
from recipes.report.templates import template


def clips_shown(
    rows: Any, frames: Sequence[Mapping[str, Any]], clips: Sequence[Mapping[str, Any]], shown: int
) -> list[dict[str, Any]]:
    """Return what the page shows of the first `shown` frames: their clips, in the frames' order, each with a strip.

    A clip's strip has its frames among those and their neighbours, in the order of their seconds; `rank` is None of a
    neighbour. `frames` and `clips` are ranked_frames' and ranked_clips'.
    """
    samples = rows["sample"][:]
    around = ClipsOfRows(rows["clip"][:], samples)
    of_row = {frame["row"]: frame for frame in frames}
    marked = {frame["row"]: frame["rank"] for frame in frames[:shown]}
    of_clip = {clip["clip"]: clip for clip in clips}
    found = []
    for name in dict.fromkeys(frame["clip"] for frame in frames[:shown]):
        near = {each for row in around.of(name) if row in marked for each in around.around(row)}
        pictures = strip(rows, [row for row in around.of(name) if row in near], samples)
        seconds = [{**of_row[each["row"]], **each, "rank": marked.get(each["row"])} for each in pictures]
        found.append({**of_clip[name], "strip": seconds, "frames": len(around.of(name))})
    return found


def doubts_page(shown: Sequence[Mapping[str, Any]], *, run: str, source: FramesSource, frames: int, clips: int) -> str:
    """Return the page of clips_shown's clips, of so many frames and clips in all. It asks for nothing from outside."""
    fps = (source.audit or {}).get("fps")
    filters = {
        "class_in_words": class_in_words,
        "when": lambda sample: when(sample, fps),
        "share": lambda log_odds: f"{expit(log_odds):.2f}",
    }
    return template("doubts.html.j2", filters).render(
        shown=shown,
        marked=sum(each["rank"] is not None for clip in shown for each in clip["strip"]),
        classes=sorted({clip["source_class"] for clip in shown}),
        run=run,
        dataset=source.id,
        frames=frames,
        clips=clips,
        light=Markup(LIGHT),
        dark=Markup(DARK),
    )
