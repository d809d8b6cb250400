"""The page on which people try an adapter: a frame or a clip goes in, each frame gets its answer. Needs Gradio."""

import html
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from data_prep.disk.disk_errors import told
from data_prep.errors import InputError, VideoError
from data_prep.labels import SAFE, UNSAFE
from data_prep.media.frame_format import FrameFormat
from data_prep.media.images import read_image
from data_prep.media.video import Video
from recipes.adapter.safety_record import SafetyRecord
from recipes.metrics.threshold import label_of
from recipes.report.page import is_small_base, thumbnail
from recipes.report.plots import DARK, LIGHT

IMAGE_SUFFIXES, CLIP_SUFFIXES = (".jpg", ".jpeg", ".png"), (".mp4",)
MOST_SECONDS = 120  # of a clip
UPLOAD_SECONDS = 15  # how long an upload is kept for its visitor to come and take it, which a browser does at once
SWEEP_SECONDS = 5
NOTHING_YET = "<p class='quiet'>Nothing was asked yet.</p>"

CSS = f"""
:root{{{LIGHT}}}
.dark{{{DARK}}}
.answers{{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:.8rem;list-style:none;padding:0;margin:0}}
.answers img{{width:100%;height:auto;border-radius:.3rem;display:block}}
.answers b{{font-size:1.15rem}}
.answers .SAFE{{color:var(--safe)}}
.answers .UNSAFE{{color:var(--unsafe)}}
.answers.one{{grid-template-columns:minmax(0,560px)}}
.answers.one b{{font-size:2rem}}
.quiet{{color:var(--muted)}}
.trouble{{border:1px solid var(--unsafe);border-radius:.3rem;padding:.6rem .8rem}}
"""

_ABOUT = """\
# SAFE or UNSAFE?

The adapter **{adapter}** on **{base}** was trained on **{dataset}** and asked: *“{prompt}”*

**It is not a safety device.** It judges single frames, gives no reasons and misses things; a clip gets an answer for
each frame, at one a second, and no verdict. What you drop here is looked at on this machine and then removed; nothing
is kept or sent.{small}
"""
_SMALL = """

**This is the demo's base**, a small model trained on drawn scenes: what it says of real frames means nothing."""


@dataclass(frozen=True)
class Seen:
    """A frame that was scored: where it is from, how it looks, as a data URI, and its P(UNSAFE)."""

    where: str
    picture: str
    p_unsafe: float


Score = Callable[[Image.Image], float]


def build_page(
    record: SafetyRecord, adapter: str, score: Score, examples: Sequence[tuple[str, Path]], uploads: Path
) -> gr.Blocks:
    """Return the page of an adapter, named `adapter`; `score` gives P(UNSAFE) of an RGB image.

    `examples` are names and paths of frames and clips to try it on. `uploads` is Gradio's folder of uploaded files.
    """
    about = _ABOUT.format(
        adapter=adapter,
        base=record.base_model,
        dataset=record.dataset,
        prompt=record.prompt,
        small=_SMALL if is_small_base(record.base_model) else "",
    )
    kept_as = record.frames or FrameFormat()
    sweep = (SWEEP_SECONDS, UPLOAD_SECONDS)
    with gr.Blocks(title="SAFE or UNSAFE?", analytics_enabled=False, delete_cache=sweep) as page:
        gr.Markdown(about)
        seen = gr.State([])
        taken = gr.State(None, delete_callback=remove)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file = gr.File(
                    label="A frame (JPEG, PNG) or a clip (MP4)",
                    file_types=[*IMAGE_SUFFIXES, *CLIP_SUFFIXES],
                    type="filepath",
                    elem_id="drop",
                )
                threshold = gr.Slider(
                    0,
                    1,
                    value=record.threshold,
                    step=0.001,
                    label="Threshold: UNSAFE from this P(UNSAFE) on",
                    info=f"The adapter's own is {record.threshold:.4g}. Moving it runs nothing again.",
                )
                buttons = [(gr.Button(f"Try it on {name}", size="sm"), path) for name, path in examples]
            with gr.Column(scale=2, min_width=320):
                answers = gr.HTML(NOTHING_YET, elem_id="answers")

        def ask(path: str | None, at: float) -> Iterator[tuple[list[Seen], str]]:
            try:
                yield from answer_file(path, at, score, kept_as)
            finally:
                remove(path)

        outputs = [seen, answers]
        # Taken at once, past the queue: what waits there for its turn must not be swept away meanwhile.
        file.change(
            lambda path: take(path, uploads), file, taken, queue=False, api_visibility="private", show_progress="hidden"
        ).success(ask, [taken, threshold], outputs, api_visibility="private", show_progress="minimal")
        threshold.change(
            lambda frames, at: as_strip(frames, at) if frames else gr.skip(),
            [seen, threshold],
            answers,
            api_visibility="private",
            show_progress="hidden",
        )
        for button, path in buttons:
            button.click(
                lambda at, path=path: (yield from answer_file(str(path), at, score, kept_as)),
                threshold,
                outputs,
                api_visibility="private",
                show_progress="minimal",
            )
    return page


def take(path: str | None, uploads: Path) -> str | None:
    """Give an uploaded file a second name below `uploads`, for this visitor alone, and return that.

    Gradio names uploads by their content, so visitors who drop the same file share the first name: nobody may remove
    it but Gradio's own sweep, UPLOAD_SECONDS after the last of them.
    """
    if path is None:
        return None
    own = Path(tempfile.mkdtemp(prefix="taken-", dir=uploads)) / Path(path).name
    try:
        _link_or_copy(Path(path), own)
    except OSError as error:
        remove(str(own))
        gone = f"{own.name} is gone already; drop it again"
        raise gr.Error(gone if isinstance(error, FileNotFoundError) else told(error, str(own)) or str(error)) from None
    return str(own)


def _link_or_copy(path: Path, own: Path) -> None:
    try:
        os.link(path, own)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links, or another one
        shutil.copyfile(path, own)


def remove(path: str | None) -> None:
    """Remove what take gave a visitor, if it is still there."""
    if path is not None and Path(path).parent.is_dir():
        Path(path).unlink(missing_ok=True)
        Path(path).parent.rmdir()


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


def frames_of(path: Path, kept_as: FrameFormat) -> Iterator[tuple[str, Image.Image]]:
    """Yield the frames to be asked about, each with where it is from: a picture itself, of a clip one a second.

    A clip's are those of the JPEG files that extraction would write, keeping them as training's. A picture is never
    encoded anew: like a data set's, it has had what compression it has had.
    Raises InputError for anything else, for damaged files, and for clips longer than MOST_SECONDS.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        yield path.name, read_image(path, path.name)
        return
    if path.suffix.lower() not in CLIP_SUFFIXES:
        raise InputError(f"{path.name} is neither a frame (JPEG, PNG) nor a clip (MP4)")
    try:
        with Video(path) as video:
            if (video.duration_seconds or 0) > MOST_SECONDS:
                raise InputError(f"{path.name} lasts longer than {MOST_SECONDS} s; cut it")
            taken = 0
            for second, image in video.samples(Fraction(1)):
                if second >= MOST_SECONDS:
                    raise InputError(f"{path.name} lasts longer than {MOST_SECONDS} s; cut it")
                taken += 1
                yield f"second {second}", read_image(kept_as.encoded(image))
            if not taken:
                raise InputError(f"{path.name}: no frame can be read ({video.reason})")
    except VideoError as error:
        raise InputError(f"{path.name}: not a readable clip ({error})") from None


def as_strip(frames: Sequence[Seen], threshold: float, latency: str = "") -> str:
    """Return the frames, each with its answer at a threshold, as HTML: one large, or several as a strip."""
    labels = [label_of(frame.p_unsafe, threshold) for frame in frames]
    items = []
    for frame, label in zip(frames, labels, strict=True):
        where = html.escape(frame.where)
        items.append(
            f"<li><img src='{frame.picture}' alt='{where}: {label}'><b class='{label}'>{label}</b><br>"
            f"P(UNSAFE) {frame.p_unsafe:.3f}<br><span class='quiet'>{where}</span></li>"
        )
    counts = f"{len(frames)} frames: {labels.count(UNSAFE)} {UNSAFE}, {labels.count(SAFE)} {SAFE}"
    said = " · ".join(part for part in (counts if len(frames) > 1 else "", latency) if part)
    kind = "answers one" if len(frames) == 1 else "answers"
    return f"<p class='quiet' role='status'>{said}</p><ul class='{kind}'>{''.join(items)}</ul>"


def theme() -> Any:
    """Return a look that takes its fonts from the reader's system alone."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
