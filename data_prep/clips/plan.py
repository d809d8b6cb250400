"""The plan of an extraction: which clips are finished, pending or failed, and what goes of those that vanished."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from data_prep.clips.archive import Source
from data_prep.clips.cameras import day_of
from data_prep.clips.folders import has_all_frames, remove_folder
from data_prep.clips.jsonl import CLIPS_FILE, read_clips, write_clips
from data_prep.clips.layout import Layout
from data_prep.clips.names import assign_video_ids, folder_key, folder_name
from data_prep.clips.records import EXTRACTOR_VERSION, FRAMES_FOLDER, Clip, Settings, earlier_in_words
from data_prep.clips.split import with_splits
from data_prep.clips.workers import Pool, results, with_progress
from data_prep.errors import InputError, printable
from data_prep.files import sha256_of_file

MOST_LOST = 5  # clips that a run may find gone; more look like another data set, or a disk that isn't there


def make_plan(data: Path, layout: Layout, settings: Settings, pool: Pool, *, remove_vanished: bool) -> list[Clip]:
    """Return one record a clip: the finished one where nothing changed, else a pending one, or a failed one.

    The plan is on disk before any frame is, so a record never speaks for frames of another content, other settings or
    an earlier extractor, and whatever an interrupted run leaves is known by its record. Raises InputError, and removes
    nothing, where more clips with frames are lost than `remove_vanished` or chance account for.
    """
    root, (sources, left) = layout.root, layout.list_clips()
    if left:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items()))
        print(printable(f"left, because only .mp4 files in class folders are clips: {counts}"), file=sys.stderr)
    known = _known_clips(data)
    unread = _unread(layout, sources, known, settings)
    if not remove_vanished:
        _check_lost(data, root, known, unread)  # before hashing, which takes a while
    wanted = with_splits(_read(root, unread, pool), layout.split_way)
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


def _unread(layout: Layout, sources: list[Source], known: list[Clip], settings: Settings) -> list[Clip]:
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
            own_class=layout.classes is not None,
            description=source.source_class.description,
            camera=layout.camera.camera_of(source.path_in_split),
            day=day_of(source.path),
            split_from=source.split_from,
        )
        for source in sources
    ]


def _read(root: Path, unread: list[Clip], pool: Pool) -> list[Clip]:
    """Return the clips with their contents' hashes, pending, and failed those that can't be read."""
    to_read = [(root, clip) for clip in unread if clip.reason is None]
    read = with_progress(results(pool, hash_clip, clip_not_hashed, to_read), len(to_read), "checking")
    found = {clip.path: clip for clip in read}
    return [found.get(clip.path, clip) for clip in unread]


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
    """Raise InputError where more clips with frames aren't among `clips` than may be by chance.

    One that is there under the same path, of another split or label by now, isn't lost.
    """
    kept = {place for clip in clips for place in (clip.folder, clip.path)}
    recorded = [clip for clip in known if clip.has_frames and (data / clip.folder).is_dir()]
    lost = [clip for clip in recorded if not {clip.folder, clip.path} & kept]
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
    if not (same and has_all_frames(data, known)):
        return None
    told_by_path = ("source_class", "own_class", "description", "camera", "day", "split_from")
    return replace(known, **{name: getattr(wanted, name) for name in told_by_path})


def _remove_lost(data: Path, known: Iterable[Clip], plan: Iterable[Clip]) -> None:
    """Remove the frames of recorded clips that are gone or can't be read; other folders aren't ours to remove."""
    plan = [clip for clip in plan if clip.status != "failed"]
    kept, paths = {folder_key(clip.folder): clip.folder for clip in plan}, {clip.path for clip in plan}
    moved = {clip.folder for clip in known if clip.path in paths}
    for folder in sorted({clip.folder for clip in known} - set(kept.values())):
        alike = data / kept.get(folder_key(folder), "")  # the same one, where case or Unicode form doesn't count
        if (data / folder).is_dir() and not (alike.exists() and alike.samefile(data / folder)):
            there, gone = "is of another split, label or name now", "is no longer in the data set, or can't be read"
            print(f"removed {printable(folder)}: its clip {there if folder in moved else gone}", file=sys.stderr)
            remove_folder(data / folder)
