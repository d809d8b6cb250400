import io
import random
import re
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_prep.errors import VideoError
from data_prep.media.mp4 import foreign_files
from data_prep.media.mp4.foreign_files import foreign_kind
from data_prep.media.mp4.opening import open_mp4
from data_prep.media.video import Video
from tests.made_clips import number_of, picture, times, write_audio_mp4, write_mp4

SIZE, RATE, FRAMES = (160, 128), 25, 30
HIKVISION = b"IMKH\1\1" + bytes(34)


def stream(path: Path, container: str, codec: str, **options: str) -> bytes:
    """Return a second of video whose frames tell their number and are as large as a camera's, in a container."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format=container) as output:
        track = output.add_stream(codec, rate=RATE)
        track.width, track.height = SIZE
        track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        track.options = {
            "crf": "20",
            "b": "3000000",
            "preset": "veryfast",
            "deadline": "realtime",
            "cpu-used": "8",
            **options,
        }
        for number in range(FRAMES):
            noise = rng.integers(-20, 21, (SIZE[1], SIZE[0], 3))
            pixels = np.clip(picture(number, *SIZE).astype(int) + noise, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(track.encode(frame))
        output.mux(track.encode())
    return path.read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Return what makes a stream, each kind once."""
    kept: dict[object, bytes] = {}

    def make(container: str, codec: str, **options: str) -> bytes:
        key = (container, codec, *options.items())
        if key not in kept:
            kept[key] = stream(tmp_path_factory.mktemp("streams") / "clip", container, codec, **options)
        return kept[key]

    return make


def packets_of(transport: bytes) -> list[bytes]:
    return [transport[start : start + 188] for start in range(0, len(transport), 188)]


def m2ts(transport: bytes) -> bytes:
    return b"".join(struct.pack(">I", 1000 * n) + packet for n, packet in enumerate(packets_of(transport)))


def with_parity(transport: bytes) -> bytes:
    return b"".join(packet + bytes(16) for packet in packets_of(transport))


def dahua(raw_h264: bytes) -> bytes:
    """Return a Dahua recording: each picture between a header with its time and a trailer."""
    found = []
    with av.open(io.BytesIO(raw_h264), format="h264") as container:
        units = [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    extra = bytes([0x80, 0, SIZE[0] // 8, SIZE[1] // 8, 0x81, 0, 2, RATE])
    for number, (unit, is_key) in enumerate(units):
        seconds, thousandths = divmod(number * 1000 // RATE, 1000)
        date = 26 << 26 | 11 << 22 | 27 << 17 | 10 << 12 | seconds
        length = 24 + len(extra) + len(unit) + 8
        clock = struct.pack("<IIIHBB", number, length, date, 1000 * seconds + thousandths, len(extra), 0)
        kind = bytes([0xFD if is_key else 0xFC, 0, 0, 0])
        found.append(b"DHAV" + kind + clock + extra + unit + b"dhav" + struct.pack("<I", length))
    return b"".join(found)


Make = Callable[..., bytes]
NO_B = {"bf": "0"}
STREAMS: dict[str, tuple[Callable[[Make], bytes], str]] = {
    "program stream": (lambda make: make("vob", "mpeg2video"), "an MPEG program stream, no mp4"),
    "MPEG-1": (lambda make: make("mpeg", "mpeg1video"), "an MPEG program stream, no mp4"),
    "Hikvision, MPEG-2": (
        lambda make: HIKVISION + make("vob", "mpeg2video"),
        "an MPEG program stream behind a recorder's header of 40 bytes (Hikvision), no mp4",
    ),
    "Hikvision, H.264": (lambda make: HIKVISION + make("vob", "libx264"), "header of 40 bytes (Hikvision)"),
    "Hikvision, HEVC": (lambda make: HIKVISION + make("vob", "libx265"), "header of 40 bytes (Hikvision)"),
    "another header": (lambda make: b"\1ABC" * 100 + make("vob", "libx264", **NO_B), "header of 400 bytes, no mp4"),
    "transport stream": (lambda make: make("mpegts", "libx264"), "an MPEG transport stream of 188-byte packets"),
    "192": (lambda make: m2ts(make("mpegts", "libx264")), "an MPEG transport stream of 192-byte packets"),
    "204": (lambda make: with_parity(make("mpegts", "libx264")), "an MPEG transport stream of 204-byte packets"),
    "behind junk": (lambda make: b"\xee" * 777 + make("mpegts", "libx265"), "an MPEG transport stream"),
    "Matroska": (lambda make: make("matroska", "libx264"), "a Matroska (WebM) file"),
    "WebM, VP8": (lambda make: make("webm", "libvpx"), "a Matroska (WebM) file"),
    "AVI, MPEG-4": (lambda make: make("avi", "mpeg4", bf="2"), "an AVI file"),
    "AVI, H.264": (lambda make: make("avi", "libx264"), "an AVI file"),
    "FLV": (lambda make: make("flv", "libx264"), "an FLV file"),
    "FLV, Sorenson": (lambda make: make("flv", "flv"), "an FLV file"),
    "WMV": (lambda make: make("asf", "wmv2"), "an ASF (WMV) file"),
    "MXF": (lambda make: make("mxf", "mpeg2video"), "an MXF file"),
    "IVF": (lambda make: make("ivf", "libvpx"), "an IVF file"),
    "NUT": (lambda make: make("nut", "libx264"), "a NUT file"),
    "raw H.264": (lambda make: make("h264", "libx264"), "raw H.264 video, no mp4"),
    "raw HEVC": (lambda make: make("hevc", "libx265"), "raw HEVC video, no mp4"),
    "raw behind a header": (
        lambda make: b"HXVS" + bytes([1] * 28) + make("h264", "libx264"),
        "raw H.264 video behind a recorder's header of 32 bytes, no mp4",
    ),
    "raw MPEG-2": (lambda make: make("mpeg2video", "mpeg2video"), "raw MPEG video"),
    "raw MPEG-4": (lambda make: make("m4v", "mpeg4"), "raw MPEG-4 video"),
    "raw MJPEG": (lambda make: make("mjpeg", "mjpeg"), "a row of JPEG pictures, no mp4"),
    "MJPEG of a camera": (lambda make: make("mpjpeg", "mjpeg"), "a row of JPEG pictures, no mp4"),
    "Dahua": (lambda make: dahua(make("h264", "libx264", **NO_B)), "a Dahua recording"),
}


def reason_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(VideoError) as error:
        Video(path)
    reason = str(error.value)
    assert reason.isprintable()
    assert str(path.parent) not in reason
    return reason


def command_of(reason: str) -> list[str]:
    return re.sub(r".*?(?=ffmpeg -)", "", reason).split()


@pytest.mark.parametrize("kind", STREAMS)
def test_the_command_for_a_stream_reads_it(tmp_path: Path, made: Make, kind: str) -> None:
    """What stands before the input opens the file as what it is; without a recorder's header, the first frame comes."""
    make, what = STREAMS[kind]
    content = make(made)
    path = tmp_path / "clip.mp4"
    reason = reason_of(path, content)
    assert what in reason
    before = command_of(reason)[1 : command_of(reason).index("-i")]
    options = dict(zip([name[1:] for name in before[::2]], before[1::2], strict=True))
    with av.open(str(path), format=options.pop("f"), options=options) as container:
        frames = [number_of(frame.to_image()) for frame in container.decode(video=0)]
    assert frames == list(range(FRAMES))


@pytest.mark.parametrize("kind", STREAMS)
def test_the_command_for_a_stream_makes_an_mp4_of_every_frame(tmp_path: Path, made: Make, kind: str) -> None:
    if not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg here: the commands are not run")
    command = command_of(reason_of(tmp_path / "IN.mp4", STREAMS[kind][0](made)))
    subprocess.run([*command[:1], "-nostdin", *command[1:]], check=True, cwd=tmp_path, capture_output=True, timeout=60)
    with av.open(str(tmp_path / "OUT.mp4"), format="mp4") as container:
        shown = [(frame.time, number_of(frame.to_image())) for frame in container.decode(video=0)]
    assert [number for _, number in shown] == list(range(FRAMES))
    assert [time - shown[0][0] for time, _ in shown] == pytest.approx([n / RATE for n in range(FRAMES)], abs=0.002)


def image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, format=kind)
    return file.getvalue()


def zipped(*, encrypted: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("clip.mp4", b"frames")
    content = bytearray(file.getvalue())
    content[6] |= encrypted
    return bytes(content)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
PAGE = b"\r\n<!DOCTYPE html>\n<html><head><title>\n Sign in </title></head><body></body></html>"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file, no mp4: download or copy the clip again"),
        (bytes(10**6), "1000000 bytes of zeros, what a power cut or an unfinished download leaves"),
        (bytes(10**5) + b"x", "a file that begins with zeros, maybe an unfinished download"),
        (LFS, "a pointer of git-LFS, no mp4: fetch the clip: git lfs pull"),
        (b"/annex/objects/SHA256E-s123--0.mp4\n", "a pointer of git-annex"),
        (PAGE, 'an HTML page ("Sign in"), no mp4: sign in where need be and download or copy the clip again'),
        (b"<html>", "an HTML page, no mp4"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "AccessDenied"),
        (b'{"error": "expired link"}', 'a text ("{"error": "expired link"}"), no mp4: download'),
        ("Zugriff verweigert: läuft ab".encode("utf-16"), 'a text ("Zugriff verweigert: läuft ab")'),
        (b"\xef\xbb\xbf" + "é".encode() * 1999 + b"x" * 9, 'a text ("' + "é" * 60 + '…")'),  # cut within a letter
        (b"#EXTM3U\n#EXTINF:1,\nclip.ts\n", "a playlist, no mp4"),
        (image("JPEG"), "a JPEG picture, no mp4: put the clip itself there or take the file out"),
        (image("PNG"), "a PNG picture"),
        (image("GIF"), "a GIF picture"),
        (image("WEBP"), "a WebP picture"),
        (image("BMP"), "a BMP picture"),
        (image("TIFF"), "a TIFF picture"),
        (b"ID3\4" + bytes(100), "an MP3 sound file"),
        (b"RIFF\0\0\0\0WAVEfmt " + bytes(100), "a WAV sound file"),
        (b"OggS\0\2" + bytes(100), "an Ogg file"),
        (zipped(encrypted=False), "a zip archive, no mp4: unpack it"),
        (
            zipped(encrypted=True),
            "an encrypted zip archive, no mp4: unpack it and put the clips in its place, with its",
        ),
        (b"Rar!\x1a\7\0" + bytes(100), "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip archive"),
        (b"clip.mp4".ljust(257, b"\0") + b"ustar" + bytes(300), "a tar archive"),
        (b"%PDF-1.7\n" + bytes(100), "a PDF document"),
        (b"MZ" + bytes(100), "a Windows program, maybe a player with the clip in it"),
        (random.Random(0).randbytes(5000), "not a readable mp4"),
    ],
)
def test_what_is_no_clip_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in reason_of(tmp_path / "clip.mp4", content)


def avif(path: Path) -> bytes:
    with av.open(str(path), "w", format="avif") as output:
        track = output.add_stream("libsvtav1", rate=1)
        track.width, track.height, track.pix_fmt = 64, 64, "yuv420p"
        output.mux(track.encode(av.VideoFrame.from_ndarray(picture(3, 64, 64), format="rgb24")))
        output.mux(track.encode())
    return path.read_bytes()


def clip(path: Path, flags: str = "") -> bytes:
    return write_mp4(path, times(20, 10), container_options={"movflags": flags} if flags else {}).read_bytes()


def at(content: bytes, kind: bytes) -> int:
    return content.index(kind) - 4


def without_header(path: Path) -> bytes:
    content = clip(path, "frag_keyframe+empty_moov")
    return content[at(content, b"moof") :]


def renamed(path: Path, old: bytes, new: bytes) -> bytes:
    content = clip(path)
    entry = content.index(old, content.index(b"stsd"))
    return content[:entry] + new + content[entry + 4 :]


def index_in_zeros(path: Path) -> bytes:
    content = clip(path)
    return content[: at(content, b"moov")] + bytes(len(content) - at(content, b"moov"))


def with_damaged_index(path: Path) -> bytes:
    content = clip(path)
    counts = content.index(b"stsc") + 4
    return content[:counts] + b"\xff" * 12 + content[counts + 12 :]


MP4S: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "index missing": (lambda p: clip(p)[: at(clip(p), b"moov")], "an mp4 without its index (moov), which is"),
    "cut off": (lambda p: clip(p)[: at(clip(p), b"moov") - 9], "an mp4 that is cut off, "),
    "index cut off": (lambda p: clip(p)[:-400], "an mp4 whose index (moov) is cut off, "),
    "index in zeros": (index_in_zeros, "an mp4 without its index (moov), zeros or other data from byte"),
    "index damaged": (with_damaged_index, "its index (moov) is damaged"),
    "piece of a stream": (without_header, "a piece of a streamed clip without the stream's header (moov): cat"),
    "behind other bytes": (lambda p: b"JUNK" * 10 + clip(p), "an mp4 behind 40 other bytes: tail -c +41 IN.mp4"),
    "AVIF": (avif, "a HEIF or AVIF picture, no mp4"),
    "sound": (lambda p: write_audio_mp4(p).read_bytes(), "holds no video, only sound or data"),
    "unknown codec": (lambda p: renamed(p, b"avc1", b"zzzz"), "holds video in an unknown codec ('zzzz'): encode"),
    "encrypted": (lambda p: renamed(p, b"avc1", b"encv"), "holds encrypted video: decrypt it"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MP4S)
def test_why_an_mp4_is_not_read(tmp_path: Path, kind: str) -> None:
    make, reason = MP4S[kind]
    assert reason in reason_of(tmp_path / "clip.mp4", make(tmp_path / "sound.mp4"))


def test_a_cover_picture_is_no_clip(tmp_path: Path) -> None:
    path = write_audio_mp4(tmp_path / "clip.mp4")
    content, cover = path.read_bytes(), image("JPEG")

    def box(kind: bytes, inner: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(inner), kind) + inner

    data = box(b"covr", box(b"data", struct.pack(">II", 13, 0) + cover))
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    tags = box(b"udta", box(b"meta", bytes(4) + handler + box(b"ilst", data)))
    moov = at(content, b"moov")
    size = struct.unpack_from(">I", content, moov)[0]
    content = content[:moov] + struct.pack(">I", size + len(tags)) + content[moov + 4 : moov + size] + tags
    path.write_bytes(content)
    with av.open(str(path), format="mp4") as container:
        assert container.streams.best("video") is not None
    assert "holds no video, only a cover picture" in reason_of(path, content)


@pytest.mark.parametrize("container", ["mp4", "mov", "3gp", "ipod", "ismv", "f4v"])
def test_sound_clips_of_every_brand_are_opened(tmp_path: Path, container: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(stream(tmp_path / "made", container, "libx264", **NO_B))
    opened = open_mp4(tmp_path / "clip.mp4")
    with opened.container:
        assert sum(bool(packet.size) for packet in opened.container.demux(opened.stream)) == FRAMES
    assert not opened.faults


def test_any_bytes_are_answered_in_a_line(tmp_path: Path, made: Make) -> None:
    """Beginnings of every kind, cut and damaged at random."""
    rng = random.Random(0)
    heads = [make(made)[:3000] for make, _ in STREAMS.values()] + [clip(tmp_path / "made.mp4"), LFS, PAGE, image("PNG")]
    for _ in range(600):
        content = bytearray(rng.choice(heads))
        for _ in range(rng.randrange(20)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        content = content[rng.choice([0, rng.randrange(len(content))]) :]
        reason = foreign_kind(io.BytesIO(content))
        assert reason is None or reason.isprintable()
        (tmp_path / "clip.mp4").write_bytes(content)
        try:
            open_mp4(tmp_path / "clip.mp4").container.close()
        except VideoError as error:
            assert str(error).isprintable()


def test_a_clip_is_no_foreign_file(tmp_path: Path) -> None:
    for flags in ("", "faststart", "frag_keyframe+empty_moov"):
        assert foreign_kind(io.BytesIO(clip(tmp_path / "clip.mp4", flags))) is None
    assert foreign_files.HEAD_BYTES >= 2**16
