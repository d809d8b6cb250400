"""A clip's frames taken and written: of one clip, and of all that a plan says are pending."""

import io
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from PIL import Image

from data_prep.clips.folders import publish, remove_temporaries, temporary_beside
from data_prep.clips.jsonl import CLIPS_FILE, write_clips
from data_prep.clips.records import Clip, Settings, frame_name
from data_prep.clips.workers import Pool, results, with_progress
from data_prep.disk.disk_errors import named
from data_prep.errors import VideoError
from data_prep.files import if_supported
from data_prep.media.frame_format import FrameFormat
from data_prep.media.video import Video

SAVE_EVERY_SECONDS = 1.0  # what a kill can cost, beside the clips being worked on


def extract_pending(data: Path, root: Path, plan: list[Clip], pool: Pool) -> list[Clip]:
    """Extract the pending clips of the plan and return it with their finished records, saved as it goes."""
    clips = {clip.path: clip for clip in plan}
    pending = [clip for clip in plan if clip.status == "pending"]
    # Folders are made and published here, never by a worker: one that outlives a killed run can do neither.
    work = ((root / clip.path, temporary_beside(data / clip.folder), clip) for clip in pending)
    extracted = results(pool, extract_clip, clip_not_extracted, work)
    saved = time.monotonic()
    try:
        for temporary, clip in with_progress(extracted, len(pending), "extracting"):
            publish(temporary, data, clip)
            clips[clip.path] = clip
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                write_clips(data / CLIPS_FILE, clips.values())
                saved = time.monotonic()
    finally:
        remove_temporaries(data)
        write_clips(data / CLIPS_FILE, clips.values())
    return list(clips.values())


def extract_clip(source: Path, folder: Path, clip: Clip) -> tuple[Path, Clip]:
    """Write the samples of one clip as JPEG files into `folder` and return the folder and the clip's finished record.

    Of a damaged clip, what can be had is written and the status is `partial`; with nothing to be had it is `failed`.
    One frame is held at a time. Raises OSError where a frame cannot be written.
    """
    for left in folder.iterdir():  # by a process that died of this clip
        left.unlink()
    try:
        with Video(source) as video:
            samples, size = save_samples(video, folder, clip.settings)
            return folder, _record(clip, video, samples, size)
    except VideoError as error:
        return folder, replace(clip, status="failed", reason=str(error))


def clip_not_extracted(source: Path, folder: Path, clip: Clip, cause: str) -> tuple[Path, Clip]:
    """Return the folder and the clip's record, failed because the process that decoded it died."""
    return folder, replace(clip, status="failed", reason=f"the process that decoded it died ({cause})")


def save_samples(video: Video, folder: Path, settings: Settings) -> tuple[list[int], tuple[int, int] | None]:
    """Write the samples and return their numbers and the first one's (width, height), None where there is none.

    Raises VideoError as `Video.samples` does, and for whatever else goes wrong in reading.
    """
    fps = Fraction(str(settings.fps))  # the shortest decimal is what was asked for: 0.1 means a tenth
    samples: list[int] = []
    size: tuple[int, int] | None = None
    for sample, image in _samples(video, fps):
        saved = _save_frame(image, folder / frame_name(sample), settings.frame_format)
        samples.append(sample)
        size = size or saved
    return samples, size


def _samples(video: Video, fps: Fraction) -> Iterator[tuple[int, Image.Image]]:
    """Yield a clip's samples. What is raised while they are written isn't raised in here."""
    try:
        yield from video.samples(fps)
    except VideoError:
        raise
    except OSError as error:
        raise VideoError(f"cannot be read to its end ({error.strerror})") from None
    except Exception as error:  # a fault of the reader, or too little memory: the other clips go on
        raise VideoError(f"its reading failed ({type(error).__name__}: {error})") from None


def _save_frame(image: Image.Image, path: Path, frame_format: FrameFormat) -> tuple[int, int]:
    encoded = io.BytesIO()  # Pillow, given the file, takes a part of it for the whole where the disk gets full
    size = frame_format.write(image, encoded)
    with named(path), path.open("wb") as file:
        file.write(encoded.getbuffer())
        file.flush()
        with if_supported():
            os.fsync(file.fileno())  # or a power cut could leave an empty frame at its final path
    return size


def _record(clip: Clip, video: Video, samples: list[int], size: tuple[int, int] | None) -> Clip:
    faults = tuple(sorted((fault, count) for fault, count in video.faults.items() if count))
    if size is None:
        damage = f" ({video.reason})" if video.reason else ""
        return replace(clip, status="failed", faults=faults, reason=f"no frame could be decoded{damage}")
    return replace(
        clip,
        duration_seconds=video.duration_seconds,
        rate=video.rate,
        width=size[0],
        height=size[1],
        samples=tuple(samples),
        status="partial" if faults else "ok",
        faults=faults,
        reason=video.reason,
    )
