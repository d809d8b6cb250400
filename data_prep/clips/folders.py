"""The folders that frames lie in, one a clip: made aside, put in place whole, checked, removed."""

import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from data_prep.clips.records import FRAMES_FOLDER, Clip, frame_name
from data_prep.disk.litter import is_unfinished, without_litter
from data_prep.errors import printable
from data_prep.files import if_supported

TEMPORARY_PREFIX = ".extracting-"


def temporary_beside(folder: Path) -> Path:
    """Return a new folder, hidden, to fill before it takes the place of `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder.parent))


def publish(temporary: Path, data: Path, clip: Clip) -> None:
    """Put a clip's frames at their final path, whole; a failed clip has none there."""
    final = data / clip.folder
    if final.exists():
        remove_folder(final)
    if clip.has_frames:
        with if_supported():
            temporary.chmod(0o755)
        temporary.rename(final)
    else:
        remove_folder(temporary)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that its path never shows a part of it, and so that nobody still writing can keep it.

    What can't be removed, such as a file that NFS keeps while somebody reads it, stays hidden until the next run.
    """
    aside = folder.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    if aside.exists():
        print(f"not all of {printable(str(aside))} could be removed; the next run tries again", file=sys.stderr)


def remove_temporaries(data: Path) -> None:
    """Remove what earlier runs left half-made or half-removed below a data folder."""
    for folder in list((data / FRAMES_FOLDER).glob(f"*/*/{TEMPORARY_PREFIX}*")):
        remove_folder(folder)


def has_all_frames(data: Path, clip: Clip) -> bool:
    """Whether the clip's folder below `data` holds exactly the frames that its record lists, none of them empty.

    Litter among them, and what a download left unfinished, don't count.
    """
    folder = data / clip.folder
    if not folder.is_dir():
        return False
    found = [path for path in without_litter(folder) if not is_unfinished(path.name)]
    wanted = {frame_name(sample) for sample in clip.samples}
    return {path.name for path in found} == wanted and all(path.stat().st_size for path in found)


def frame_folders(data: Path) -> list[str]:
    """Return the folders of frames that stand below a data folder, whether or not a clip accounts for them."""
    folders = [data / FRAMES_FOLDER]
    for _ in ("split", "label", "clip"):
        folders = [path for folder in folders if folder.is_dir() for path in without_litter(folder)]
    return sorted(path.relative_to(data).as_posix() for path in folders)
