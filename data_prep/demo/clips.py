"""The demo's clips: which are planned, what each shows, and its mp4 file."""

import io
from dataclasses import dataclass, replace

import av
import numpy as np

from data_prep.demo.renderer import Renderer
from data_prep.demo.scenes import sample_scene
from data_prep.demo.stage import HEIGHT, WIDTH, Scene
from data_prep.labels import SAFE, SOURCE_CLASSES, SPLITS, TEST, TRAIN, UNSAFE, SourceClass

FRAMES_PER_SECOND = 24
MIN_SECONDS, MAX_SECONDS = 3.0, 8.0
MAX_SEED = 2**31 - 1  # the small base is pretrained on scenes from the seeds above
UNSAFE_SHARE = {TRAIN: 0.8, TEST: 0.5}  # the published data: 0.799 and 0.512
ENCODER_OPTIONS = {"preset": "ultrafast", "threads": "1"}  # more threads change the bytes with the machine
QUALITIES = range(24, 33)  # x264's crf: higher is coarser

# Byte-copies and what they copy, each across classes as in the published data: within a split and across them, under
# one label and under both. Every source shows an open panel, so each is what its folders say it is.
COPIES = {
    "train/2_opened_panel cover/2_tr2.mp4": "train/1_unauthorized_intervention/1_tr1.mp4",
    "train/2_opened_panel cover/2_tr3.mp4": "train/5_authorized_intervention/5_tr1.mp4",
    "test/2_opened_panel cover/2_te2.mp4": "train/1_unauthorized_intervention/1_tr2.mp4",
    "test/2_opened_panel cover/2_te3.mp4": "train/5_authorized_intervention/5_tr2.mp4",
}


@dataclass(frozen=True)
class PlannedClip:
    """One clip to draw: `number` counts from 1 within its split and class. A copy is drawn as what it copies.

    `place` is its path where that isn't the published one, and `mirrored` has its pictures turned left to right.
    """

    split: str
    source_class: SourceClass
    number: int
    copy_of: "PlannedClip | None" = None
    place: str | None = None
    mirrored: bool = False

    @property
    def path(self) -> str:
        """The clip's path below the data set's folder."""
        return self.place or self.published_path

    @property
    def published_path(self) -> str:
        """The path that it has in the published layout, spelled as there."""
        name = f"{self.source_class.digit}_{self.split[:2]}{self.number}.mp4"
        return f"{self.split}/{published_folder(self.source_class)}/{name}"


def published_folder(source_class: SourceClass) -> str:
    """Return the class folder's name as the published data set spells it: class 2 holds a space."""
    return source_class.folder.replace("panel_cover", "panel cover") if source_class.digit == 2 else source_class.folder


def plan_clips(split: str, count: int) -> list[PlannedClip]:
    """Share `count` clips among the eight classes: the split's prior between the labels, evenly within a label.

    Every class gets at least one clip; `count` is at least eight.
    """
    unsafe_classes = [each for each in SOURCE_CLASSES if each.label == UNSAFE]
    safe_classes = [each for each in SOURCE_CLASSES if each.label == SAFE]
    unsafe = min(round(count * UNSAFE_SHARE[split]), count - len(safe_classes))
    shares = ((unsafe_classes, max(unsafe, len(unsafe_classes))), (safe_classes, count - unsafe))
    return [
        PlannedClip(split, source_class, number)
        for classes, total in shares
        for position, source_class in enumerate(classes)
        for number in range(1, 1 + len(range(position, total, len(classes))))
    ]


def with_copies(plan: list[PlannedClip]) -> list[PlannedClip]:
    """Return the plan with its byte-copies marked, as far as it holds both the copy and what it copies."""
    by_path = {clip.published_path: clip for clip in plan}
    return [replace(clip, copy_of=by_path.get(COPIES.get(clip.published_path, ""))) for clip in plan]


def scene_of(clip: PlannedClip, seed: int) -> tuple[Scene, np.random.Generator]:
    """Return what a clip shows, which `seed` and its split, class and number decide alone, and what goes on drawing."""
    drawn = clip.copy_of or clip
    rng = np.random.default_rng([seed, SPLITS.index(drawn.split), drawn.source_class.digit, drawn.number])
    panel_open = True if drawn.published_path in COPIES.values() else None
    return sample_scene(drawn.source_class.digit, rng, panel_open=panel_open, load=drawn.number - 1), rng


def encode_clip(clip: PlannedClip, seed: int) -> bytes:
    """Return the mp4 file of one clip."""
    scene, rng = scene_of(clip, seed)
    renderer, mirrored = Renderer(scene), (clip.copy_of or clip).mirrored
    frames = round(rng.uniform(MIN_SECONDS, MAX_SECONDS) * FRAMES_PER_SECOND)
    options = {**ENCODER_OPTIONS, "crf": str(rng.choice(QUALITIES))}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 2 * FRAMES_PER_SECOND
        for index in range(frames):
            pixels = renderer.pixels(index / FRAMES_PER_SECOND)
            if mirrored:
                pixels = np.ascontiguousarray(pixels[:, ::-1])
            picture = av.VideoFrame.from_numpy_buffer(pixels, format="rgba")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()
