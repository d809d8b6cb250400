"""What a file under a clip's name is, where it is no mp4, and what to do: told from its first bytes.

The commands were tried with ffmpeg 5.1 on files of each kind. Frames are copied where they keep their times so. Where
the file states few times or none (program streams, AVI, raw video), a copy loses frames or shuffles them: they are
encoded anew.
"""

import re
from io import SEEK_END
from typing import BinaryIO

HEAD_BYTES = 2**16
_SHOWN_CHARACTERS = 60
_COPY = "-an -c copy"
_ENCODE = "-an -fps_mode passthrough -c:v libx264 -crf 18"
_GUESSED_RATE = "with its own frames a second for 25"
AGAIN = "download or copy the clip again"
EXPORT = "copy it again, or export it from the recorder as mp4"


def _make_mp4(reading: str, writing: str, note: str = "") -> str:
    return f"make an mp4 of it{note and f' ({note})'}: ffmpeg {reading} -i IN.mp4 {writing} OUT.mp4"


PICTURE = "put the clip itself there or take the file out"
_SOUND = "it holds no video: take it out"
_UNPACK = "unpack it and put the clips in its place"
_ROW_OF_PICTURES = ("a row of JPEG pictures", _make_mp4("-f mjpeg -framerate 25", _ENCODE, _GUESSED_RATE))
_SIGNATURES = [
    (rb"RIFF....AVI ", "an AVI file", _make_mp4("-f avi", _ENCODE)),
    (rb"RIFF....WAVE", "a WAV sound file", _SOUND),
    (rb"RIFF....WEBP", "a WebP picture", PICTURE),
    (rb"0&\xb2\x75\x8e\x66\xcf\x11", "an ASF (WMV) file", _make_mp4("-f asf", _ENCODE)),
    (rb"OggS", "an Ogg file", _make_mp4("-f ogg", _ENCODE)),
    (rb"\x06\x0e\x2b\x34\x02\x05\x01\x01", "an MXF file", _make_mp4("-f mxf", _COPY)),
    (rb"DKIF", "an IVF file", _make_mp4("-f ivf", _ENCODE)),
    (rb"\.RMF", "a RealMedia file", _make_mp4("-f rm", _ENCODE)),
    (rb"nut/multimedia container", "a NUT file", _make_mp4("-f nut", _COPY)),
    (rb"DHAV|DAHUA", "a Dahua recording (DAV)", _make_mp4("-f dhav", _COPY)),
    (rb"\x89PNG\r\n", "a PNG picture", PICTURE),
    (rb"GIF8[79]a", "a GIF picture", PICTURE),
    (rb"BM....\0\0\0\0", "a BMP picture", PICTURE),
    (rb"II\*\0|MM\0\*", "a TIFF picture", PICTURE),
    (rb"ID3|\xff[\xf2\xf3\xfa\xfb]", "an MP3 sound file", _SOUND),
    (rb"\xff[\xf1\xf9]", "an AAC sound file", _SOUND),
    (rb"fLaC", "a FLAC sound file", _SOUND),
    (rb"PK\x03\x04", "a zip archive", _UNPACK),
    (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (rb"\x1f\x8b", "a gzip archive", _UNPACK),
    (rb"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (rb"BZh[1-9]1AY", "a bzip2 archive", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (rb".{257}ustar", "a tar archive", _UNPACK),
    (rb"Salted__", "a file that openssl encrypted", "decrypt it"),
    (rb"%PDF-", "a PDF document", AGAIN),
    (rb"MZ.{58}", "a Windows program, maybe a player with the clip in it", "start it there and export the clip as mp4"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document", AGAIN),
    (rb"SQLite format 3", "an SQLite database", EXPORT),
    (rb"bplist0", "a property list, maybe a placeholder of a cloud", AGAIN),
]
_RAW = [("hevc", "HEVC", rb"\0\0\x01[\x40\x42]\x01"), ("h264", "H.264", rb"\0\0\x01[\x27\x47\x67]")]
_IN_MP4 = (7, 12)  # FLV's numbers of H.264 and HEVC
_MARKUP = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)<", re.IGNORECASE | re.DOTALL)


def foreign_kind(file: BinaryIO) -> str | None:
    """Return what a file is that isn't made of an mp4's boxes, and what to do, in one line; None for no answer."""
    size = file.seek(0, SEEK_END)
    if size == 0:
        return f"an empty file, no mp4: {AGAIN}"
    file.seek(0)
    head = file.read(HEAD_BYTES)
    for told in (_zeros(file, head, size), _signed(head), _text(head), _stream(head)):
        if told:
            what, remedy = told
            return f"{what}, no mp4: {remedy}"
    return None


Told = tuple[str, str] | None  # what a file is, and what to do


def _zeros(file: BinaryIO, head: bytes, size: int) -> Told:
    if len(head.lstrip(b"\0")):
        return None
    content = head
    while content and not content.strip(b"\0"):
        content = file.read(2**20)
    if content:
        return "a file that begins with zeros, maybe an unfinished download", AGAIN
    return f"{size} bytes of zeros, what a power cut or an unfinished download leaves", AGAIN


def _signed(head: bytes) -> Told:
    if head.startswith(b"\x1aE\xdf\xa3"):
        can_copy = re.search(rb"V_(?:MPEG4/ISO/AVC|MPEGH/ISO/HEVC|AV1|VP9|MPEG[12])", head)
        return "a Matroska (WebM) file", _make_mp4("-f matroska", _COPY if can_copy else _ENCODE)
    if head.startswith(b"FLV\1"):
        return "an FLV file", _make_mp4("-f flv", _COPY if _flv_codec(head) in _IN_MP4 else _ENCODE)
    if head.startswith(b"\xff\xd8\xff"):
        if b"\xff\xd9\xff\xd8" in head:
            return _ROW_OF_PICTURES
        return "a JPEG picture", PICTURE
    if head.startswith(b"PK\x03\x04") and head[6:7] and head[6] & 1:
        return "an encrypted zip archive", f"{_UNPACK}, with its password"
    found = (told for pattern, *told in _SIGNATURES if re.match(pattern, head, re.DOTALL))
    return next(((what, remedy) for what, remedy in found), None)


def _flv_codec(head: bytes) -> int | None:
    """Return the number of the codec in an FLV file's first video tag."""
    at = 13
    while len(head) > at + 11:
        if head[at] == 9:
            return head[at + 11] & 15
        at += 15 + int.from_bytes(head[at + 1 : at + 4], "big")
    return None


def _text(head: bytes) -> Told:
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a pointer of git-LFS", "fetch the clip: git lfs pull"
    if b"/annex/objects/" in head[:1000]:
        return "a pointer of git-annex", "fetch the clip: git annex get IN.mp4"
    if re.match(rb"--.{1,200}?Content-[Tt]ype: *image/jpeg", head, re.DOTALL):
        return _ROW_OF_PICTURES
    text = _decoded(head)
    if text is None:
        return None
    if _MARKUP.match(text.encode()):
        title = _TITLE.search(text)
        return f"an HTML page{f' ({_shown(title[1])})' if title else ''}", f"sign in where need be and {AGAIN}"
    if text.startswith("#EXTM3U"):
        return "a playlist", "download the stream it names: ffmpeg -i URL -an -c copy OUT.mp4"
    return f"a text ({_shown(text)})", AGAIN


def _decoded(head: bytes) -> str | None:
    """Return the first bytes as text, None where they are none."""
    coding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    start = head[:4000]
    for cut in range(4):  # the last character may be cut
        try:
            text = start[: len(start) - cut].decode(coding)
        except UnicodeDecodeError:
            continue
        return text if all(letter.isprintable() or letter.isspace() for letter in text) else None
    return None


def _shown(text: str) -> str:
    words = " ".join(text.split())
    return f'"{words[:_SHOWN_CHARACTERS]}{"…" if len(words) > _SHOWN_CHARACTERS else ""}"'


def _stream(head: bytes) -> Told:
    packet = _transport_packet(head)
    if packet:
        return f"an MPEG transport stream of {packet}-byte packets", _make_mp4("-f mpegts", _COPY)
    pack = next((found.start() for found in re.finditer(rb"\0\0\x01\xba", head) if _is_pack(head, found.start())), None)
    if pack is not None:
        return _program_stream(head, pack)
    if re.match(rb"\0*\x01\xb3", head):
        return "raw MPEG video", _make_mp4("-f mpegvideo", _ENCODE)
    if re.match(rb"\0*\x01[\xb0\xb5]", head):
        return "raw MPEG-4 video", _make_mp4("-f m4v -framerate 25", _ENCODE, _GUESSED_RATE)
    return _raw_video(head)


def _transport_packet(head: bytes) -> int | None:
    """Return the length of a transport stream's packets, which begin with a G each, None without any."""
    for start in range(min(len(head), 4096)):
        for length in (188, 192, 204) if head[start] == 0x47 else ():
            marks = head[start::length][:20]
            if len(marks) > 3 and marks.count(0x47) == len(marks):
                return length
    return None


def _is_pack(head: bytes, start: int) -> bool:
    """Say whether a program stream's pack header is whole and another start code follows it."""
    header = head[start : start + 14]
    if len(header) < 14:
        return False
    if header[4] & 0xC4 == 0x44:  # MPEG-2
        after = start + 14 + (header[13] & 7)
    elif header[4] & 0xF1 == 0x21:  # MPEG-1
        after = start + 12
    else:
        return False
    return head[after : after + 3] == b"\0\0\1" and head[after + 3 : after + 4] >= b"\xb9"


def _program_stream(head: bytes, pack: int) -> Told:
    behind, skip = _behind_header(pack)
    maker = " (Hikvision)" if head.startswith(b"IMKH") else ""
    return f"an MPEG program stream{behind}{maker}", _make_mp4(f"-f mpeg{skip}", _ENCODE)


def _behind_header(size: int) -> tuple[str, str]:
    """Return what a recorder's header of so many bytes before a stream adds to its name and to its command."""
    return (f" behind a recorder's header of {size} bytes", f" -skip_initial_bytes {size}") if size else ("", "")


def _raw_video(head: bytes) -> Told:
    for codec, name, parameters in _RAW:
        first = re.search(parameters, head)
        if first and _are_units(head[first.start() :], codec):
            start = len(head[: first.start()].rstrip(b"\0"))
            behind, skip = _behind_header(start)
            return f"raw {name} video{behind}", _make_mp4(f"-f {codec}{skip} -framerate 25", _ENCODE, _GUESSED_RATE)
    return None


def _are_units(stream: bytes, codec: str) -> bool:
    """Say whether all that follows a start code can be a NAL unit, and there are parameters and a picture."""
    headers = [found[1] for found in re.finditer(rb"\0\0\x01(..)", stream, re.DOTALL)]
    if codec == "h264":
        kinds = [header[0] & 31 for header in headers]
        sound = all(header[0] < 128 and kind < 24 for header, kind in zip(headers, kinds, strict=True))
        return sound and {7, 8} <= set(kinds) and bool({1, 5} & set(kinds))
    kinds = [header[0] >> 1 for header in headers]
    sound = all(header[0] < 128 and header[0] & 1 == 0 and 0 < header[1] < 8 for header in headers)
    return sound and {33, 34} <= set(kinds) and any(kind < 22 for kind in kinds)
