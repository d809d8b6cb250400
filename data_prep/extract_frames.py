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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config
from PIL import Image
from tqdm import tqdm

from data_prep.clips import (
    CLIPS_FILE,
    EXTRACTOR_VERSION,
    FRAMES_FOLDER,
    Clip,
    Settings,
    Source,
    assign_video_ids,
    earlier_in_words,
    find_dataset,
    frame_name,
    has_all_frames,
    list_clips,
    read_clips,
    write_clips,
)
from data_prep.disk_errors import named
from data_prep.errors import InputError, VideoError, run_script
from data_prep.files import from_root, hold_lock, if_supported, sha256_of_file
from data_prep.video import Video

LOCK_FILE = ".extract_frames.lock"
TEMPORARY_PREFIX = ".extracting-"
SAVE_EVERY_SECONDS = 1.0  # what a kill can cost, beside the clips being worked on
DASK_TIMEOUT_SECONDS = 10
JPEG_QUALITY = 90  # about 0.4 MB a frame of 1080p; the model sees it shrunk to a fifth of its pixels


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
    with hold_lock(data / LOCK_FILE, busy), _cluster(arguments.dask):
        _remove_temporaries(data)
        plan = _plan(data, root, settings, arguments.workers)
        clips = _extract_pending(data, root, plan, arguments.workers)
    extracted = sum(clip.status == "pending" for clip in plan)
    failed = _report(clips, extracted, time.monotonic() - started)
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
    arguments = parser.parse_args(argv)
    if arguments.workers is None:
        arguments.workers = -1 if arguments.dask else cpu_count()
    elif arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: at least 1 is needed")
    return arguments


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Have joblib's loops run on a Dask cluster whose workers see the same folders under the same paths, if asked."""
    if address is None:
        yield
        return
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "--dask needs Dask; install it with: pip install -r requirements-dask.txt -c constraints.txt"
        ) from None
    try:
        client = Client(address, timeout=DASK_TIMEOUT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--dask {address}: no scheduler answers there ({error}); name the one you started") from None
    with client, parallel_config(backend="dask", client=client):
        yield


def _plan(data: Path, root: Path, settings: Settings, workers: int) -> list[Clip]:
    """Return one record a clip: the finished one where nothing changed, else one whose status is pending.

    The plan is on disk before any frame is, so a record never speaks for frames of another content, other settings or
    an earlier extractor, and whatever an interrupted run leaves is known by its record.
    """
    sources, left = list_clips(root)
    if left:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items()))
        print(f"left, because only .mp4 files in class folders are clips: {counts}", file=sys.stderr)
    known = {clip.path: clip for clip in _known_clips(data)}
    ids = assign_video_ids(sources, {path: clip.video_id for path, clip in known.items()})
    hashes = _each_clip(_hash, ((root, source.path) for source in sources), len(sources), workers, "checking")
    sha256 = dict(hashes)
    wanted = [_pending(source, ids[source.path], sha256[source.path], settings) for source in sources]
    if earlier := sum(known[path].is_of_earlier_extractor for path in ids if path in known):
        print(f"{earlier_in_words(earlier)}: extracting them anew", file=sys.stderr)
    plan = [_finished(data, clip, known.get(clip.path)) or clip for clip in wanted]
    _remove_vanished(data, known.values(), plan)
    write_clips(data / CLIPS_FILE, plan)
    return plan


def _known_clips(data: Path) -> list[Clip]:
    path = data / CLIPS_FILE
    return read_clips(path) if path.exists() else []


def _each_clip(
    work: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], total: int, workers: int, title: str
) -> Iterator[Any]:
    """Yield the result of `work` for each clip, in the order in which the processes finish."""
    results = Parallel(n_jobs=workers, return_as="generator_unordered")(delayed(work)(*each) for each in arguments)
    yield from tqdm(results, total=total, desc=title, unit="clip", file=sys.stderr, disable=not sys.stderr.isatty())


def _hash(root: Path, path: str) -> tuple[str, str]:
    return path, sha256_of_file(root / path)


def _pending(source: Source, video_id: str, sha256: str, settings: Settings) -> Clip:
    return Clip(
        video_id=video_id,
        split=source.split,
        label=source.source_class.label,
        source_class=source.source_class.folder,
        path=source.path,
        sha256=sha256,
        duration_seconds=None,
        rate=None,
        width=None,
        height=None,
        settings=settings,
        extractor=EXTRACTOR_VERSION,
        samples=(),
        status="pending",
        faults=(),
        reason=None,
    )


def _finished(data: Path, wanted: Clip, known: Clip | None) -> Clip | None:
    """Return the known record if it is of the wanted content and settings, of today's extractor and has its frames."""
    if known is None or not known.has_frames or known.is_of_earlier_extractor:
        return None
    same = (known.sha256, known.settings, known.folder) == (wanted.sha256, wanted.settings, wanted.folder)
    return known if same and has_all_frames(data, known) else None


def _remove_vanished(data: Path, known: Iterable[Clip], plan: Iterable[Clip]) -> None:
    """Remove the frames of recorded clips that the data set no longer holds; other folders aren't ours to remove."""
    kept = {clip.folder for clip in plan}
    for folder in sorted({clip.folder for clip in known} - kept):
        if (data / folder).is_dir():
            print(f"removed {folder}: its clip is no longer in the data set", file=sys.stderr)
            _remove_folder(data / folder)


def _extract_pending(data: Path, root: Path, plan: list[Clip], workers: int) -> list[Clip]:
    """Extract the pending clips of the plan and return it with their finished records, saved as it goes."""
    clips = {clip.path: clip for clip in plan}
    pending = [clip for clip in plan if clip.status == "pending"]
    # Folders are made and published here, never by a worker: one that outlives a killed run can do neither.
    work = ((root / clip.path, _temporary_beside(data / clip.folder), clip) for clip in pending)
    saved = time.monotonic()
    try:
        for temporary, clip in _each_clip(extract_clip, work, len(pending), workers, "extracting"):
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
    try:
        with Video(source) as video:
            samples, size = save_samples(video, folder, clip.settings)
            return folder, _record(clip, video, samples, size)
    except VideoError as error:
        return folder, replace(clip, status="failed", reason=str(error))


def save_samples(video: Video, folder: Path, settings: Settings) -> tuple[list[int], tuple[int, int] | None]:
    """Write the samples and return their numbers and the first one's (width, height), None where there is none."""
    fps = Fraction(str(settings.fps))  # the shortest decimal is what was asked for: 0.1 means a tenth
    samples: list[int] = []
    size: tuple[int, int] | None = None
    for sample, image in video.samples(fps):
        if settings.max_side:
            image.thumbnail((settings.max_side, settings.max_side), Image.Resampling.BICUBIC)
        _save_frame(image, folder / frame_name(sample), settings.jpeg_quality)
        samples.append(sample)
        size = size or image.size
    return samples, size


def _save_frame(image: Image.Image, path: Path, quality: int) -> None:
    encoded = io.BytesIO()  # Pillow, given the file, takes a part of it for the whole where the disk gets full
    image.save(encoded, format="JPEG", quality=quality)
    with named(path), path.open("wb") as file:
        file.write(encoded.getbuffer())
        file.flush()
        with if_supported():
            os.fsync(file.fileno())  # or a power cut could leave an empty frame at its final path


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
        shutil.rmtree(temporary)


def _remove_folder(folder: Path) -> None:
    """Remove a folder so that its path never shows a part of it, and so that nobody still writing can keep it."""
    aside = folder.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
    folder.rename(aside)
    shutil.rmtree(aside)


def _remove_temporaries(data: Path) -> None:
    for folder in list((data / FRAMES_FOLDER).glob(f"*/*/{TEMPORARY_PREFIX}*")):
        _remove_folder(folder)


def _report(clips: list[Clip], extracted: int, seconds: float) -> int:
    """Say which clips are damaged, print the counts, and return how many clips failed."""
    for clip in clips:
        if clip.status != "ok":
            print(f"{clip.status}: {clip.path}: {clip.reason}", file=sys.stderr)
    counts = Counter(clip.status for clip in clips)
    print(
        f"{len(clips)} clips, {sum(clip.frames for clip in clips)} frames; {extracted} decoded, "
        f"{len(clips) - extracted} unchanged; {counts['ok']} ok, {counts['partial']} partial, "
        f"{counts['failed']} failed; {seconds:.1f} s"
    )
    return counts["failed"]


if __name__ == "__main__":
    run_script(main)
