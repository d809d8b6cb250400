"""One frame of a data folder: a row of a JSONL, joined with its clip."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.clips.records import FRAMES_FOLDER, Clip
from data_prep.errors import InputError
from data_prep.labels import rows_file
from data_prep.media.frame_format import FrameFormat, common_format
from data_prep.rows.jsonl import Row, image_path, read_numbered_rows

# Of a row of a `datasets.Dataset`, beside its image, in the order in which a split's hash takes them.
COLUMNS = ("prompt", "response", "clip", "sample", "source_class")
CAMERA = "camera"  # a column, too, which the hash takes last and only where it says something: older data have none


@dataclass(frozen=True)
class Frame:
    """One row of a JSONL joined with its clip.

    `where` is the row's file and line, `image` relative to `folder`, the data folder. `camera` is None where it isn't
    known.
    """

    where: str
    image: str
    prompt: str
    response: str
    clip: str
    sample: int
    source_class: str
    clip_sha256: str
    camera: str | None = None
    folder: str = ""

    @property
    def columns(self) -> dict[str, str | int | None]:
        """The frame's COLUMNS, in order, and its camera."""
        return {name: getattr(self, name) for name in (*COLUMNS, CAMERA)}


def _join(row: Row, where: str, folder: Path, split: str, clips: dict[str, Clip]) -> Frame:
    path = PurePosixPath(row.image)
    clip = clips.get(path.parent.as_posix())
    if clip is None or clip.sha256 is None or not path.stem.isdecimal() or not clip.has_sample(int(path.stem)):
        raise InputError(
            f"{where}: image {row.image!r} is no frame of a clip in {CLIPS_FILE}; expected {FRAMES_FOLDER}/{split}/"
            "<safe|unsafe>/<video_id>/<sample>.jpg; run data_prep/extract_frames.py and build_jsonl.py again"
        )
    if clip.split != split:
        raise InputError(f"{where}: image {row.image!r} is of the {clip.split} split; run build_jsonl.py again")
    return Frame(
        where=where,
        image=row.image,
        prompt=row.prompt,
        response=row.response,
        clip=clip.video_id,
        sample=int(path.stem),
        source_class=clip.source_class,
        clip_sha256=clip.sha256,
        camera=clip.camera,
        folder=str(folder),
    )


def read_frames(folder: Path, split: str) -> list[Frame]:
    """Read `<folder>/<split>.jsonl`, join each row with its clip and check that its image stands in the folder.

    No image is opened. Raises InputError, naming file and line, for a bad row, an image that is missing or lies
    outside the folder, a frame that no clip of clips.jsonl accounts for, and a second row of one frame.
    """
    jsonl = folder / rows_file(split)
    rows = read_numbered_rows(jsonl)
    clips = {clip.folder: clip for clip in read_clips(folder / CLIPS_FILE)}
    frames: dict[tuple[str, int], Frame] = {}
    for number, row in rows:
        where = f"{jsonl}:{number}"
        image_path(folder, row.image, where)
        frame = _join(row, where, folder, split, clips)
        first = frames.setdefault((frame.clip, frame.sample), frame)
        if first is not frame:
            raise InputError(_second_row(frame, first))
    return list(frames.values())


def _second_row(frame: Frame, first: Frame) -> str:
    line = first.where.rpartition(":")[2]
    other = "" if frame.response == first.response else f", there as {first.response} and here as {frame.response}"
    return f"{frame.where}: image {frame.image!r} stands in line {line} already{other}; leave one row of a frame"


def read_frame_format(folder: Path) -> FrameFormat | None:
    """Return how the frames of a data folder were kept, None where its clips differ in it."""
    return common_format(clip.settings.frame_format for clip in read_clips(folder / CLIPS_FILE) if clip.has_frames)
