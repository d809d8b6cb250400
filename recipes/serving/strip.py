"""Frames and their answers as HTML: one large, or several as a strip."""

import html
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import InputError
from data_prep.labels import SAFE, UNSAFE
from data_prep.media.frame_format import FrameFormat
from recipes.metrics.threshold import label_of
from recipes.report.look import DARK, LIGHT, thumbnail
from recipes.serving.answers import Score, frames_of

NOTHING_YET = "<p class='quiet'>Nothing was asked yet.</p>"

CSS = f"""
:root{{{LIGHT}}}
.dark{{{DARK}}}
.answers{{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:.8rem;list-style:none;padding:0;margin:0}}
.answers img{{width:100%;height:auto;border-radius:.3rem;display:block}}
.answers b{{font-size:1.15rem}}
.answers .{SAFE}{{color:var(--safe)}}
.answers .{UNSAFE}{{color:var(--unsafe)}}
.answers.one{{grid-template-columns:minmax(0,560px)}}
.answers.one b{{font-size:2rem}}
.quiet{{color:var(--muted)}}
.trouble{{border:1px solid var(--unsafe);border-radius:.3rem;padding:.6rem .8rem}}
"""


@dataclass(frozen=True)
class Seen:
    """A frame that was scored: where it is from, how it looks, as a data URI, and its P(UNSAFE)."""

    where: str
    picture: str
    p_unsafe: float


def answer_file(
    path: str | None, threshold: float, score: Score, kept_as: FrameFormat
) -> Iterator[tuple[list[Seen], str]]:
    """Yield the frames of a file that were scored so far, and how they are shown; trouble is shown as one line.

    `kept_as` is how extraction keeps a clip's frames, see frames_of.
    """
    if path is None:
        yield [], NOTHING_YET
        return
    frames: list[Seen] = []
    began = time.perf_counter()
    try:
        for where, image in frames_of(Path(path), kept_as):
            scored_from = time.perf_counter()
            frames.append(Seen(where, thumbnail(image), score(image)))
            milliseconds = 1000 * (time.perf_counter() - scored_from)
            yield [*frames], as_strip(frames, threshold, f"{milliseconds:.0f} ms for the last frame")
    except InputError as error:
        yield [], f"<p class='trouble' role='alert'>{html.escape(str(error))}</p>"
        return
    seconds = time.perf_counter() - began
    yield frames, as_strip(frames, threshold, f"{seconds:.2f} s in all, {seconds / len(frames):.2f} s a frame")


def as_strip(frames: Sequence[Seen], threshold: float, latency: str = "") -> str:
    """Return the frames, each with its answer at a threshold, as HTML: one large, or several as a strip."""
    labels = [label_of(frame.p_unsafe, threshold) for frame in frames]
    items = []
    for frame, label in zip(frames, labels, strict=True):
        where = html.escape(frame.where)
        items.append(
            f"<li><img src='{frame.picture}' alt='{where}: {label}'><b class='{label}'>{label}</b><br>"
            f"P({UNSAFE}) {frame.p_unsafe:.3f}<br><span class='quiet'>{where}</span></li>"
        )
    counts = f"{len(frames)} frames: {labels.count(UNSAFE)} {UNSAFE}, {labels.count(SAFE)} {SAFE}"
    said = " · ".join(part for part in (counts if len(frames) > 1 else "", latency) if part)
    kind = "answers one" if len(frames) == 1 else "answers"
    return f"<p class='quiet' role='status'>{said}</p><ul class='{kind}'>{''.join(items)}</ul>"
