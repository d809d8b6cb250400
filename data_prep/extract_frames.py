"""Take one frame a second from every clip of the data set and record how each clip went in clips.jsonl.

python data_prep/extract_frames.py [--data data] [--dataset DIR] [--fps 1] [--max-side N] [--workers N] [--dask ADDRESS]
"""

import argparse
import contextlib
import io
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from joblib import cpu_count
from PIL import Image
from tqdm import tqdm

from data_prep.clips.names import assign_video_ids, folder_key, folder_name
from data_prep.clips.records import (
    CLIPS_FILE,
    EXTRACTOR_VERSION,
    FRAMES_FOLDER,
    Clip,
    Settings,
    Source,
    earlier_in_words,
    find_dataset,
    frame_name,
    has_all_frames,
    list_clips,
    read_clips,
    write_clips,
)
from data_prep.clips.workers import Pool, processes_here, processes_on_dask, results
from data_prep.console import run_script
from data_prep.disk.disk_errors import named
from data_prep.errors import InputError, VideoError, printable
from data_prep.files import from_root, if_supported, sha256_of_file
from data_prep.locks import hold_lock
from data_prep.media.frame_format import JPEG_QUALITY, FrameFormat
from data_prep.media.video import Video

LOCK_FILE = ".extract_frames.lock"
TEMPORARY_PREFIX = ".extracting-"
SAVE_EVERY_SECONDS = 1.0  # what a kill can cost, beside the clips being worked on
MOST_LOST = 5  # clips that a run may find gone; more look like another data set, or a disk that isn't there


def main(argv: list[str]) -> int:
    """Extract every clip that isn't extracted yet. Returns 1 if a clip failed and `--skip-bad` isn't given."""
    arguments = _parse(argv)
    data = from_root(arguments.data)
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; name the data folder with --data")
    started = time.monotonic()
    root = find_dataset(data, from_root(arguments.dataset) if arguments.dataset else None)
    settings = Settings(arguments.fps, arguments.jpeg_quality, arguments.max_side)
    busy = f"another extract_frames.py is working in {data}; wait for it or end it"
    with hold_lock(data / LOCK_FILE, busy), _pool(arguments) as pool:
        _remove_temporaries(data)
        plan = _plan(data, root, settings, pool, remove_vanished=arguments.remove_vanished)
        clips = _extract_pending(data, root, plan, pool)
    failed = _report(clips, Counter(clip.status for clip in plan), time.monotonic() - started)
    return 1 if failed and not arguments.skip_bad else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder that gets frames/ and clips.jsonl (default: data)")
    parser.add_argument("--dataset", help="the data set's root (default: found in the data folder)")
    parser.add_argument("--fps", type=float, default=1.0, help="frames a second of video (default: 1)")
    parser.add_argument("--jpeg-quality", type=int, default=JPEG_QUALITY, help=f"1 to 95 (default: {JPEG_QUALITY})")
    parser.add_argument("--max-side", type=int, help="shrink frames to so many pixels a side (default: native size)")
    parser.add_argument("--workers", type=int, help="processes (default: one a core; with --dask all of its workers)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run on the workers of this Dask scheduler, tcp://host:8786")
    parser.add_argument("--skip-bad", action="store_true", help="exit with 0 although clips failed")
    parser.add_argument(
        "--remove-vanished",
        action="store_true",
        help=f"remove the frames of clips that are gone, more than {MOST_LOST} or half of them, too",
    )
    arguments = parser.parse_args(argv)
    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: at least 1 is needed")
    return arguments


def _pool(arguments: argparse.Namespace) -> contextlib.AbstractContextManager[Pool]:
    if arguments.dask:
        return processes_on_dask(arguments.dask, arguments.workers)
    return processes_here(arguments.workers or cpu_count())


def _plan(data: Path, root: Path, settings: Settings, pool: Pool, *, remove_vanished: bool) -> list[Clip]:
    """Return one record a clip: the finished one where nothing changed, else a pending one, or a failed one.

    The plan is on disk before any frame is, so a record never speaks for frames of another content, other settings or
    an earlier extractor, and whatever an interrupted run leaves is known by its record. Raises InputError, and removes
    nothing, where more clips with frames are lost than `remove_vanished` or chance account for.
    """
    sources, left = list_clips(root)
    if left:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items()))
        print(printable(f"left, because only .mp4 files in class folders are clips: {counts}"), file=sys.stderr)
    known = _known_clips(data)
    unread = _unread(sources, known, settings)
    if not remove_vanished:
        _check_lost(data, root, known, unread)  # before hashing, which takes a while
    wanted = _read(root, unread, pool)
    if not remove_vanished:
        _check_lost(data, root, known, [clip for clip in wanted if clip.status != "failed"])
    paths = {clip.path for clip in wanted}
    if earlier := sum(clip.is_of_earlier_extractor for clip in known if clip.path in paths):
        print(f"{earlier_in_words(earlier)}: extracting them anew", file=sys.stderr)
    trusted = _with_folders_of_their_own(known)
    plan = [_finished(data, clip, trusted.get(clip.path)) or clip for clip in wanted]
    _remove_lost(data, known, plan)
    write_clips(data / CLIPS_FILE, plan)
    return plan


def _known_clips(data: Path) -> list[Clip]:
    path = data / CLIPS_FILE
    return read_clips(path) if path.exists() else []


def _with_folders_of_their_own(clips: Iterable[Clip]) -> dict[str, Clip]:
    """Return clips by path, without those that share a folder with another on some file system."""
    clips = list(clips)
    sharing = Counter((clip.split, folder_key(clip.video_id)) for clip in clips)
    return {clip.path: clip for clip in clips if sharing[clip.split, folder_key(clip.video_id)] == 1}


def _unread(sources: list[Source], known: list[Clip], settings: Settings) -> list[Clip]:
    """Return the records of clips whose content isn't known: `reason` says why it can't be, None where it can."""
    kept = {
        clip.path: clip.video_id for clip in known if clip.has_frames or clip.video_id == folder_name(clip.video_id)
    }
    ids = assign_video_ids(sources, kept)
    return [
        Clip(
            video_id=ids[source.path],
            split=source.split,
            label=source.source_class.label,
            source_class=source.source_class.folder,
            path=source.path,
            sha256=None,
            duration_seconds=None,
            rate=None,
            width=None,
            height=None,
            settings=settings,
            extractor=EXTRACTOR_VERSION,
            samples=(),
            status="failed",
            faults=(),
            reason=source.reason,
        )
        for source in sources
    ]


def _read(root: Path, unread: list[Clip], pool: Pool) -> list[Clip]:
    """Return the clips with their contents' hashes, pending, and failed those that can't be read."""
    to_read = [(root, clip) for clip in unread if clip.reason is None]
    read = _shown(results(pool, hash_clip, clip_not_hashed, to_read), len(to_read), "checking")
    found = {clip.path: clip for clip in read}
    return [found.get(clip.path, clip) for clip in unread]


def _shown(clips: Iterable[Any], total: int, title: str) -> Iterator[Any]:
    yield from tqdm(clips, total=total, desc=title, unit="clip", file=sys.stderr, disable=not sys.stderr.isatty())


def hash_clip(root: Path, clip: Clip) -> Clip:
    """Return the clip with its content's hash, pending; or failed, where it can't be read."""
    try:
        return replace(clip, status="pending", sha256=sha256_of_file(root / clip.path))
    except OSError as error:
        return replace(clip, reason=f"cannot be read ({error.strerror})")


def clip_not_hashed(root: Path, clip: Clip, cause: str) -> Clip:
    """Return the clip, failed because the process that read it died."""
    return replace(clip, reason=f"the process that read it died ({cause})")


def _check_lost(data: Path, root: Path, known: Iterable[Clip], clips: Iterable[Clip]) -> None:
    """Raise InputError where more clips with frames aren't among `clips` than may be by chance."""
    kept = {clip.folder for clip in clips}
    recorded = [clip for clip in known if clip.has_frames and (data / clip.folder).is_dir()]
    lost = [clip for clip in recorded if clip.folder not in kept]
    if len(lost) > MOST_LOST or 2 * len(lost) > len(recorded):
        raise InputError(
            f"{len(lost)} of the {len(recorded)} clips that {data / FRAMES_FOLDER} holds frames of are not in {root}, "
            f"or can't be read, the first {lost[0].path}; nothing was removed: name their data set with --dataset, "
            "have their frames removed with --remove-vanished, or, where they were deleted to free the disk, go on "
            "with build_jsonl.py, which needs the frames alone"
        )


def _finished(data: Path, wanted: Clip, known: Clip | None) -> Clip | None:
    """Return the known record if it is of the wanted content and settings, of today's extractor and has its frames."""
    if known is None or not known.has_frames or known.is_of_earlier_extractor:
        return None
    same = (known.sha256, known.settings, known.folder) == (wanted.sha256, wanted.settings, wanted.folder)
    return known if same and has_all_frames(data, known) else None


def _remove_lost(data: Path, known: Iterable[Clip], plan: Iterable[Clip]) -> None:
    """Remove the frames of recorded clips that are gone or can't be read; other folders aren't ours to remove."""
    kept = {folder_key(clip.folder): clip.folder for clip in plan if clip.status != "failed"}
    for folder in sorted({clip.folder for clip in known} - set(kept.values())):
        alike = data / kept.get(folder_key(folder), "")  # the same one, where case or Unicode form doesn't count
        if (data / folder).is_dir() and not (alike.exists() and alike.samefile(data / folder)):
            print(
                f"removed {printable(folder)}: its clip is no longer in the data set, or can't be read", file=sys.stderr
            )
            _remove_folder(data / folder)


def _extract_pending(data: Path, root: Path, plan: list[Clip], pool: Pool) -> list[Clip]:
    """Extract the pending clips of the plan and return it with their finished records, saved as it goes."""
    clips = {clip.path: clip for clip in plan}
    pending = [clip for clip in plan if clip.status == "pending"]
    # Folders are made and published here, never by a worker: one that outlives a killed run can do neither.
    work = ((root / clip.path, _temporary_beside(data / clip.folder), clip) for clip in pending)
    extracted = results(pool, extract_clip, clip_not_extracted, work)
    saved = time.monotonic()
    try:
        for temporary, clip in _shown(extracted, len(pending), "extracting"):
            _publish(temporary, data, clip)
            clips[clip.path] = clip
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                write_clips(data / CLIPS_FILE, clips.values())
                saved = time.monotonic()
    finally:
        _remove_temporaries(data)
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


def _temporary_beside(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder.parent))


def _publish(temporary: Path, data: Path, clip: Clip) -> None:
    """Put a clip's frames at their final path, whole; a failed clip has none there."""
    final = data / clip.folder
    if final.exists():
        _remove_folder(final)
    if clip.has_frames:
        with if_supported():
            temporary.chmod(0o755)
        temporary.rename(final)
    else:
        _remove_folder(temporary)


def _remove_folder(folder: Path) -> None:
    """Remove a folder so that its path never shows a part of it, and so that nobody still writing can keep it.

    What can't be removed, such as a file that NFS keeps while somebody reads it, stays hidden until the next run.
    """
    aside = folder.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    if aside.exists():
        print(f"not all of {printable(str(aside))} could be removed; the next run tries again", file=sys.stderr)


def _remove_temporaries(data: Path) -> None:
    for folder in list((data / FRAMES_FOLDER).glob(f"*/*/{TEMPORARY_PREFIX}*")):
        _remove_folder(folder)


def _report(clips: list[Clip], planned: Counter[str], seconds: float) -> int:
    """Say which clips are damaged, print the counts, and return how many clips failed.

    `planned` counts the clips by the status they had when extraction began.
    """
    for clip in clips:
        if clip.status != "ok":
            print(printable(f"{clip.status}: {clip.path}: {clip.reason}"), file=sys.stderr)
    counts = Counter(clip.status for clip in clips)
    print(
        f"{len(clips)} clips, {sum(clip.frames for clip in clips)} frames; {planned['pending']} decoded, "
        f"{planned['ok'] + planned['partial']} unchanged; {counts['ok']} ok, {counts['partial']} partial, "
        f"{counts['failed']} failed; {seconds:.1f} s"
    )
    return counts["failed"]


if __name__ == "__main__":
    run_script(main)
