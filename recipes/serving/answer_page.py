"""The page on which people try an adapter: a frame or a clip goes in, each frame gets its answer. Needs Gradio."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from data_prep.disk.disk_errors import told
from data_prep.labels import SAFE, UNSAFE
from data_prep.media.frame_format import FrameFormat
from recipes.adapter.safety_record import SafetyRecord
from recipes.report.look import is_small_base
from recipes.serving.answers import CLIP_SUFFIXES, IMAGE_SUFFIXES, Score
from recipes.serving.strip import NOTHING_YET, Seen, answer_file, as_strip

UPLOAD_SECONDS = 15  # how long an upload is kept for its visitor to come and take it, which a browser does at once
SWEEP_SECONDS = 5

_ABOUT = """\
# {safe} or {unsafe}?

The adapter **{adapter}** on **{base}** was trained on **{dataset}** and asked: *“{prompt}”*

**It is not a safety device.** It judges single frames, gives no reasons and misses things; a clip gets an answer for
each frame, at one a second, and no verdict. What you drop here is looked at on this machine and then removed; nothing
is kept or sent.{small}
"""
_SMALL = """

**This is the demo's base**, a small model trained on drawn scenes: what it says of real frames means nothing."""


Answer = Callable[[str | None, float], Iterator[tuple[list[Seen], str]]]


@dataclass(frozen=True)
class Parts:
    """The page's parts that do something: what is dropped or clicked on, and what it ends in."""

    file: gr.File
    threshold: gr.Slider
    examples: Sequence[tuple[gr.Button, Path]]
    seen: gr.State
    taken: gr.State
    answers: gr.HTML


def build_page(
    record: SafetyRecord, adapter: str, score: Score, examples: Sequence[tuple[str, Path]], uploads: Path
) -> gr.Blocks:
    """Return the page of an adapter, named `adapter`; `score` gives P(UNSAFE) of an RGB image.

    `examples` are names and paths of frames and clips to try it on. `uploads` is Gradio's folder of uploaded files.
    """
    kept_as = record.frames or FrameFormat()
    sweep = (SWEEP_SECONDS, UPLOAD_SECONDS)
    with gr.Blocks(title=f"{SAFE} or {UNSAFE}?", analytics_enabled=False, delete_cache=sweep) as page:
        gr.Markdown(about(record, adapter))
        parts = lay_out(record, examples)
        connect(parts, uploads, lambda path, at: answer_file(path, at, score, kept_as))
    return page


def about(record: SafetyRecord, adapter: str) -> str:
    """Return what the page says of the adapter, as Markdown."""
    return _ABOUT.format(
        adapter=adapter,
        base=record.base_model,
        dataset=record.dataset,
        prompt=" ".join(record.prompt.split()),  # a line of its own would end the emphasis
        safe=SAFE,
        unsafe=UNSAFE,
        small=_SMALL if is_small_base(record.base_model) else "",
    )


def lay_out(record: SafetyRecord, examples: Sequence[tuple[str, Path]]) -> Parts:
    """Put the parts on the page that is being built."""
    seen, taken = gr.State([]), gr.State(None, delete_callback=remove)
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
                label=f"Threshold: {UNSAFE} from this P({UNSAFE}) on",
                info=f"The adapter's own is {record.threshold:.4g}. Moving it runs nothing again.",
            )
            buttons = [(gr.Button(f"Try it on {name}", size="sm"), path) for name, path in examples]
        with gr.Column(scale=2, min_width=320):
            answers = gr.HTML(NOTHING_YET, elem_id="answers")
    return Parts(file, threshold, buttons, seen, taken, answers)


def connect(parts: Parts, uploads: Path, answer: Answer) -> None:
    """Have a file answered when it is dropped, an example when it is clicked on, and all shown by the threshold."""

    def ask(path: str | None, at: float) -> Iterator[tuple[list[Seen], str]]:
        try:
            yield from answer(path, at)
        finally:
            remove(path)

    outputs = [parts.seen, parts.answers]
    shown: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    # Taken at once, past the queue: what waits there for its turn must not be swept away meanwhile.
    parts.file.change(lambda path: take(path, uploads), parts.file, parts.taken, queue=False, **hidden).success(
        ask, [parts.taken, parts.threshold], outputs, **shown
    )
    parts.threshold.change(
        lambda frames, at: as_strip(frames, at) if frames else gr.skip(),
        [parts.seen, parts.threshold],
        parts.answers,
        **hidden,
    )
    for button, path in parts.examples:
        button.click(lambda at, path=path: (yield from answer(str(path), at)), parts.threshold, outputs, **shown)


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


def theme() -> Any:
    """Return a look that takes its fonts from the reader's system alone."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
