"""Opening a clip: as much of an mp4 as can be read, or the reason for none, in one line with what to do."""

from collections import Counter
from dataclasses import dataclass
from io import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.stream import Disposition

from data_prep.errors import VideoError
from data_prep.media.mp4.boxes import NO_BOX, Box, boxes, fields_of, sample_entries, track_box
from data_prep.media.mp4.edit_lists import EditList, edit_list
from data_prep.media.mp4.foreign_files import AGAIN, EXPORT, PICTURE, foreign_kind
from data_prep.media.mp4.fragments import Part, PartOfFile, readable_part

_FIRST_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"uuid", b"pnot"}
_PICTURE_BRANDS = (b"hei", b"hev", b"mif", b"msf", b"avi")
_MOST_BEFORE = 4096  # bytes that a recorder or a download may have put before an mp4
_REPAIR = "have it repaired by the recorder's software, or by untrunc with a whole clip of the same camera"


@dataclass(frozen=True)
class OpenedMp4:
    """A clip's container and its video stream.

    `faults` says in words what of the file is left out. With `edits`, frames bear the track's own times, and the list
    says when each is shown; without, FFmpeg has applied the clip's edit list.
    """

    container: Any
    stream: Any
    faults: Counter[str]
    edits: EditList | None


def open_mp4(path: Path) -> OpenedMp4:
    """Open a clip.

    Raises VideoError for what is no mp4, and for one that holds no video or none that can be decoded.
    """
    try:
        with path.open("rb") as file:
            found = list(boxes(file, 0, file.seek(0, SEEK_END)))
            headers = [box for box in found if box.kind == b"moov"]
            if not headers:  # without this, a picture in an mp4's boxes (HEIF) would be decoded
                raise VideoError(_no_mp4(file, found))
            try:
                container, part = _open(path, readable_part(file))
                try:
                    return _opened(path, file, headers[0], container, part)
                except VideoError:
                    container.close()
                    raise
            except av.FFmpegError as error:
                raise VideoError(_no_mp4(file, found, error.strerror)) from None
    except OSError as error:
        raise VideoError(f"cannot be read ({error.strerror})") from None


def _open(path: Path, part: Part) -> tuple[Any, Part]:
    """Open a part of a clip, or as many of its first fragments as FFmpeg takes. Raises av.FFmpegError for none."""
    try:
        return _container(path, part), part
    except av.FFmpegError:
        fragments = part.fragments or ()
        if not fragments:
            raise
    first, last = 0, len(fragments) - 1
    while first < last:  # the last one before which all can be read
        middle = (first + last + 1) // 2
        try:
            _container(path, part.before(fragments[middle])).close()
            first = middle
        except av.FFmpegError:
            last = middle - 1
    part = part.before(fragments[first])
    return _container(path, part), part


def _container(path: Path, part: Part, *, ignore_edits: bool = False) -> Any:
    # Without the forced format, a picture or a playlist under a clip's name would be decoded.
    source = f"file:{path}" if part.is_all else PartOfFile(path, part)
    options = {"ignore_editlist": "1"} if ignore_edits else {}
    return av.open(source, format="mp4", metadata_errors="replace", options=options)


def _opened(path: Path, file: BinaryIO, moov: Box, container: Any, part: Part) -> OpenedMp4:
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise VideoError(f"holds no video, only {'a cover picture' if stream else 'sound or data'}: take it out")
    trak = track_box(file, moov, stream.id)
    codecs = sample_entries(file, trak) if trak else []
    if b"encv" in codecs:
        raise VideoError(
            "holds encrypted video: decrypt it, for instance with ffmpeg -decryption_key KEY -i IN.mp4 -c copy OUT.mp4"
        )
    if stream.codec_context is None:
        name = ", ".join(codec.decode("latin-1") for codec in codecs)
        raise VideoError(
            f"holds video in an unknown codec ({name!r}): encode it anew, with the recorder's software or an ffmpeg "
            f"that knows it: ffmpeg -i IN.mp4 -an -c:v libx264 -crf 18 OUT.mp4"
        )
    if part.fragments == () and not len(stream.index_entries):
        raise VideoError("holds a header and no whole fragment: nothing can be had of it; copy the clip again")
    edits = edit_list(file, moov, stream.id)
    if edits:
        container.close()
        container = _container(path, part, ignore_edits=True)
        stream = container.streams.best("video")
    return OpenedMp4(container, stream, Counter(part.faults), edits)


def _no_mp4(file: BinaryIO, found: list[Box], error: str | None = None) -> str:
    """Say why a file cannot be opened, `found` being the boxes that its bytes make."""
    if found and found[0].kind in _FIRST_BOXES:
        return _damaged(file, found, error)
    return foreign_kind(file) or _behind_others(file) or f"not a readable mp4 ({error or 'unknown data'}): {EXPORT}"


def _damaged(file: BinaryIO, found: list[Box], error: str | None) -> str:
    size, kinds, last = file.seek(0, SEEK_END), {box.kind for box in found}, found[-1]
    if b"moov" in kinds:
        if last.kind == b"moov" and last.end > size:
            there = f"{size - last.start} of {last.end - last.start} bytes"
            return f"an mp4 whose index (moov) is cut off, {there} are there: {AGAIN}"
        return f"not a readable mp4 ({error}), its index (moov) is damaged: {AGAIN} or {_REPAIR}"
    if fields_of(file, found[0])[:3] in _PICTURE_BRANDS and found[0].kind == b"ftyp":
        return f"a HEIF or AVIF picture, no mp4: {PICTURE}"
    if kinds & {b"moof", b"styp", b"sidx"}:
        return "a piece of a streamed clip without the stream's header (moov): cat HEADER.mp4 IN.mp4 > OUT.mp4"
    if last.end > size:
        return (
            f"an mp4 that is cut off, {size} of more than {last.end} bytes are there, without its index (moov): {AGAIN}"
        )
    if last.kind in (NO_BOX, bytes(4)):
        return f"an mp4 without its index (moov), zeros or other data from byte {last.start} on: {AGAIN} or {_REPAIR}"
    return f"an mp4 without its index (moov), which is written when a recording ends: {AGAIN} or {_REPAIR}"


def _behind_others(file: BinaryIO) -> str | None:
    file.seek(0)
    start = file.read(_MOST_BEFORE).find(b"ftyp") - 4
    return f"an mp4 behind {start} other bytes: tail -c +{start + 1} IN.mp4 > OUT.mp4" if start > 0 else None
