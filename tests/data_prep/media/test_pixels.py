import io
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.filter import Graph
from PIL import Image

from data_prep.errors import VideoError
from data_prep.media import pixels
from data_prep.media.pixels import Upright
from data_prep.media.video import Video
from tests.made_clips import number_of, picture, real_clip, times, turn, write_mp4

# The weights of red and blue in luma, by the number of the matrix in ITU-T H.273.
WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
COLOURS = [(200, 40, 60), (30, 180, 90), (20, 60, 220), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
UNSPECIFIED, LIMITED, FULL = 2, 1, 2  # of H.273 a matrix, of libavutil two ranges


def levels(colour: tuple[int, int, int], matrix: int, value_range: int, bits: int = 8) -> tuple[int, int, int]:
    """Return the luma and chroma levels of a colour as the matrix's standard has it."""
    red_weight, blue_weight = WEIGHTS[matrix]
    red, green, blue = (level / 255 for level in colour)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    chroma = (blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight)
    unit, most = 2 ** (bits - 8), 2**bits - 1
    if value_range == FULL:
        return round(luma * most), round(chroma[0] * most + 128 * unit), round(chroma[1] * most + 128 * unit)
    return round((16 + 219 * luma) * unit), *(round((128 + 224 * each) * unit) for each in chroma)


def plain_frame(
    values: Iterable[int], pixel_format: str = "yuv420p", size: tuple[int, int] = (64, 48), **tags: int
) -> Any:
    """Return a frame whose planes hold one value each; `tags` are the frame's colour properties."""
    frame = av.VideoFrame(*size, pixel_format)
    for plane, value in zip(frame.planes, values, strict=False):
        of_two_bytes = "le" in pixel_format
        plane.update(np.full(plane.buffer_size // (1 + of_two_bytes), value, "<u2" if of_two_bytes else "u1").tobytes())
    for name, tag in tags.items():
        setattr(frame, name, tag)
    return frame


def upright(size: tuple[int, int] = (64, 48), aspect: Fraction | None = None, codec: str = "h264") -> Upright:
    decoder = SimpleNamespace(name=codec, sample_aspect_ratio=None)
    stream = SimpleNamespace(width=size[0], height=size[1], sample_aspect_ratio=aspect, codec_context=decoder)
    return Upright(stream)


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def write_clip(
    path: Path, frames: list[Any], codec: str = "libx264", aspect: Fraction | None = None, **options: str
) -> Path:
    """Write frames, 25 a second, with their own format, size and colour tags."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        context = stream.codec_context
        context.colorspace, context.color_range = frames[0].colorspace, frames[0].color_range
        if aspect:
            context.sample_aspect_ratio = aspect
        if codec == "libx265":
            options = {"x265-params": "log-level=none:" + options.pop("params", ""), **options}
        elif codec == "libx264":
            options = {"x264-params": options.pop("params", ""), "crf": "4", **options}
        stream.options = options
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(path: Path, fps: int = 25) -> tuple[list[Image.Image], str | None]:
    with Video(path) as clip:
        return [image for _, image in clip.samples(Fraction(fps))], clip.reason


def with_bright_corner(count: int = 3) -> list[Any]:
    image = np.full((48, 64, 3), 40, np.uint8)
    image[:16, :16] = 220
    return [av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p") for _ in range(count)]


def corner_of(image: Image.Image) -> tuple[str, str]:
    grey = rgb(image).mean(2)
    rows, columns = np.nonzero(grey > 150)
    assert 200 < len(rows) < 320
    return (
        "top" if rows.mean() < image.height / 2 else "bottom",
        "left" if columns.mean() < image.width / 2 else "right",
    )


@pytest.mark.parametrize(
    ("matrix", "corner", "size"),
    [
        ((1, 0, 0, 1), ("top", "left"), (64, 48)),
        ((-1, 0, 0, 1), ("top", "right"), (64, 48)),
        ((-1, 0, 0, -1), ("bottom", "right"), (64, 48)),
        ((1, 0, 0, -1), ("bottom", "left"), (64, 48)),
        ((0, 1, 1, 0), ("top", "left"), (48, 64)),
        ((0, 1, -1, 0), ("top", "right"), (48, 64)),
        ((0, -1, -1, 0), ("bottom", "right"), (48, 64)),
        ((0, -1, 1, 0), ("bottom", "left"), (48, 64)),
        ((0.9999, 0.01, -0.01, 0.9999), ("top", "left"), (64, 48)),  # half a degree
        ((0.02, 0, 0, -0.02), ("bottom", "left"), (64, 48)),
        ((0, 0, 0, 0), ("top", "left"), (64, 48)),  # says nothing
        ((-2, 0, 0, 1), ("top", "right"), (128, 48)),
    ],
)
def test_frames_are_shown_by_the_track_headers_matrix(
    tmp_path: Path, matrix: tuple[float, float, float, float], corner: tuple[str, str], size: tuple[int, int]
) -> None:
    path = turn(write_clip(tmp_path / "clip.mp4", with_bright_corner()), *matrix)
    images, reason = shown(path)
    assert [image.size for image in images] == [size] * 3
    stretched = images[0].resize((64, 48) if matrix[1] < 0.5 and matrix[1] > -0.5 else (48, 64))
    assert corner_of(stretched) == corner
    assert reason is None


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_frames_are_turned_and_not_mirrored(tmp_path: Path, degrees: int) -> None:
    """np.rot90 turns counter-clockwise, the container's angle here is clockwise."""
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    path = turn(write_mp4(tmp_path / "clip.mp4", times(3, 10), first_number=15), *matrix)
    [image], _ = shown(path, fps=1)
    expected = np.rot90(picture(15), k=-degrees // 90)
    assert np.abs(rgb(image) - expected).mean() < 4
    assert np.abs(rgb(image.rotate(180)) - expected).mean() > 100


@pytest.mark.parametrize("matrix", [(0.7, 0.7, -0.7, 0.7), (1, 0.1, 0, 1), (1, 0, 0, 0), (1, 1, 1, 1)])
def test_a_slant_is_left_and_told(tmp_path: Path, matrix: tuple[float, float, float, float]) -> None:
    images, reason = shown(turn(write_clip(tmp_path / "clip.mp4", with_bright_corner()), *matrix))
    assert [image.size for image in images] == [(64, 48)] * 3
    assert corner_of(images[0]) == ("top", "left")
    assert reason == "frames left unturned, whose display matrix is no turn by a multiple of 90 degrees: 3"


@pytest.mark.parametrize(("degrees", "size"), [(0, (568, 320)), (90, (320, 568)), (180, (568, 320)), (270, (320, 568))])
def test_real_clips_held_four_ways(degrees: int, size: tuple[int, int]) -> None:
    images, _ = shown(real_clip(f"odd/decord_video_{degrees}.mov"), fps=1)
    assert [image.size for image in images] == [size]


def with_orientation_in_the_stream(path: Path) -> Path:
    """Write a copy of an H.264 clip whose first picture says in an SEI message that all are mirrored."""
    mirrored = path.with_name("mirrored.mp4")
    with av.open(str(path)) as source, av.open(str(mirrored), "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        insert = "h264_metadata=display_orientation=insert:flip=horizontal"
        messages = BitStreamFilterContext(insert, source.streams.video[0], stream)
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for packet in [said for each in [*packets, None] for said in messages.filter(each)]:
            packet.stream = stream
            target.mux(packet)
    return mirrored


def test_orientation_in_the_stream_holds_for_all_frames_unless_the_container_gives_one(tmp_path: Path) -> None:
    path = with_orientation_in_the_stream(write_clip(tmp_path / "clip.mp4", with_bright_corner()))
    assert [corner_of(image) for image in shown(path)[0]] == [("top", "right")] * 3
    assert [corner_of(image) for image in shown(turn(path, 0, 1, -1, 0))[0]] == [("top", "right")] * 3
    assert [corner_of(image) for image in shown(turn(path, 1, 0, 0, -1))[0]] == [("bottom", "left")] * 3


def test_jpegs_in_a_clip_may_carry_exif_data(tmp_path: Path) -> None:
    """PyAV cannot name what goes with such a frame, and lists none of it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = io.BytesIO()
    Image.fromarray(picture(15)).save(jpeg, "JPEG", exif=exif)
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packet = av.Packet(jpeg.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
        container.mux(packet)
    [image], reason = shown(path)
    assert np.abs(rgb(image) - np.rot90(picture(15), k=-1)).mean() < 4
    assert reason is None


def in_box(path: Path, box: bytes, offset: int, values: bytes) -> Path:
    """Overwrite part of a clip's first box of a kind, counted from behind its name."""
    content = bytearray(path.read_bytes())
    start = content.index(box) + 4 + offset
    content[start : start + len(values)] = values
    path.write_bytes(content)
    return path


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        ((1, 1), (64, 48)),
        ((16, 11), (93, 48)),
        ((4, 3), (85, 48)),
        ((2, 1), (128, 48)),
        ((8, 9), (64, 54)),
        ((1, 2), (64, 96)),
        ((120, 121), (64, 48)),  # rounded by a container
        ((0, 1), (85, 48)),  # nothing said, so what the bitstream says
        ((1, 0), (85, 48)),
    ],
)
def test_pixels_are_made_square(tmp_path: Path, aspect: tuple[int, int], size: tuple[int, int]) -> None:
    """The container's ratio goes before the bitstream's, 4:3 here, as in players; the short side is stretched."""
    frames = [av.VideoFrame.from_ndarray(picture(27), format="rgb24").reformat(format="yuv420p")]
    path = in_box(write_clip(tmp_path / "clip.mp4", frames, aspect=Fraction(4, 3)), b"pasp", 0, u32(*aspect))
    [image], reason = shown(path)
    assert image.size == size
    assert number_of(image) == 27
    assert reason is None
    [turned], _ = shown(turn(path, 0, 1, -1, 0))  # stretched as coded, then turned
    assert turned.size == size[::-1]


def test_pixels_are_square_in_a_track_of_its_own_size(tmp_path: Path) -> None:
    path = in_box(write_clip(tmp_path / "clip.mp4", with_bright_corner(1)), b"tkhd", 76, u32(96 << 16, 48 << 16))
    assert [image.size for image in shown(path)[0]] == [(96, 48)]


@pytest.mark.parametrize(
    ("aspect", "words"),
    [((255, 1), "255"), ((65535, 1), "65535"), ((1, 65535), "1/65535"), ((2**31 - 1, 1), "2147483647")],
)
def test_absurd_pixels_are_left_and_told(tmp_path: Path, aspect: tuple[int, int], words: str) -> None:
    path = write_clip(tmp_path / "clip.mp4", with_bright_corner(), aspect=Fraction(4, 3))
    images, reason = shown(in_box(path, b"pasp", 0, u32(*aspect)))
    assert [image.size for image in images] == [(64, 48)] * 3
    assert reason == f"frames left unstretched, whose pixels are said to be {words} times as wide as high: 3"


def test_real_clip_of_wide_pixels() -> None:
    images, _ = shown(real_clip("odd/mp4parse_h264_white_frame_sar_16_9.mp4"), fps=1)
    assert [image.size for image in images] == [(1138, 480)]


def test_each_frame_is_shown_by_its_own_properties() -> None:
    """The container speaks of frames of the first size; of another, the bitstream does."""
    turner = upright((64, 48), Fraction(2))
    red = COLOURS[0]
    frames = [
        plain_frame(levels(red, 6, LIMITED), colorspace=6),
        plain_frame(levels(red, 1, FULL), "yuvj420p", (80, 32), colorspace=1),
        plain_frame(levels(red, 9, LIMITED, 10), "yuv444p10le", (32, 80), colorspace=9),
        plain_frame(levels(red, 6, LIMITED), colorspace=6),
    ]
    images = [turner(frame) for frame in frames]
    assert [image.size for image in images] == [(128, 48), (80, 32), (32, 80), (128, 48)]
    for image in images:
        assert np.abs(rgb(image) - red).max() <= 3


def boxed(left: int) -> np.ndarray:
    """Return a picture with lines as thin as a pixel, a reddish box in front of them from the column `left` on."""
    image = np.full((96, 128, 3), 90, np.uint8)
    image[20:24, :40] = image[23] = 60
    image[80] = 130
    image[30:70, left : left + 30] = (230, 160, 150)
    return image


def woven(first_left: int, second_left: int, first: str) -> Any:
    """Return a frame of two fields, `first` "tff" for top or "bff" for bottom, the box a bit further in the second."""
    fields = [
        av.VideoFrame.from_ndarray(np.ascontiguousarray(boxed(left)[line::2]), format="rgb24")
        for left, line in ((first_left, first == "bff"), (second_left, first == "tff"))
    ]
    planes = [field.reformat(format="yuv420p").to_ndarray().reshape(72, 128) for field in fields]
    top, bottom = planes if first == "tff" else planes[::-1]
    frame = av.VideoFrame(128, 96, "yuv420p")
    for plane, start, height, width in zip(
        frame.planes, (0, 48 * 128, 60 * 128), (48, 24, 24), (128, 64, 64), strict=True
    ):
        lines = np.empty((2 * height, plane.line_size), np.uint8)
        for parity, field in enumerate((top, bottom)):
            lines[parity::2, :width] = field.reshape(-1)[start : start + height * width].reshape(height, width)
        plane.update(lines.tobytes())
    graph = Graph()
    source = graph.add_buffer(width=128, height=96, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(source, graph.add("setfield", first), graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


@pytest.mark.parametrize("first", ["tff", "bff"])
def test_interlaced_frames_are_shown_as_their_first_field(tmp_path: Path, first: str) -> None:
    lefts = [30, 38, 46, 54]
    frames = [woven(left, left + 4, first) for left in lefts]
    images, reason = shown(write_clip(tmp_path / "clip.mp4", frames, params=f"{first}=1"))
    for left, image in zip(lefts, images, strict=True):
        moved = slice(36, 64), [left + 1, left + 2, left + 31, left + 32]  # what differs between the fields
        assert np.abs(rgb(image)[moved] - boxed(left)[moved]).mean() < 12
        assert np.abs(rgb(image)[moved] - boxed(left + 4)[moved]).mean() > 50
        assert np.abs(rgb(image) - boxed(left)).mean() < 2.5
    assert reason is None


def test_still_parts_of_interlaced_frames_keep_their_detail(tmp_path: Path) -> None:
    """A lone line as thin as a pixel stays, where one field alone would have it twice as thick or not at all."""
    frames = [woven(30, 34, "tff") for _ in range(3)]
    images, _ = shown(write_clip(tmp_path / "clip.mp4", frames, params="tff=1"))
    for image in images:
        assert np.abs(rgb(image)[78:83] - boxed(30)[78:83]).mean() < 4


def test_progressive_frames_in_interlaced_coding_are_left(tmp_path: Path) -> None:
    frames = [woven(30, 34, "tff") for _ in range(3)]
    images, _ = shown(write_clip(tmp_path / "clip.mp4", frames, params="fake-interlaced=1"))
    grey = rgb(images[0])[36:64, 61:63].mean(2)
    assert grey[1::2].mean() - grey[::2].mean() > 50  # the second field's lines stand out


@pytest.mark.parametrize(("aspect", "size"), [(None, (64, 96)), (Fraction(4, 3), (64, 72)), (Fraction(1, 2), (64, 96))])
def test_fields_of_hevc_are_shown_at_their_full_height(
    tmp_path: Path, aspect: Fraction | None, size: tuple[int, int]
) -> None:
    """Every line of a field is a line darker than the next, and none of them is out of turn when it is stretched."""
    ramp = np.repeat(np.arange(30, 222, 4, dtype=np.uint8)[:, None, None], 64 * 3, axis=1).reshape(48, 64, 3)
    frames = [av.VideoFrame.from_ndarray(ramp, format="rgb24").reformat(format="yuv420p") for _ in range(3)]
    params = "lossless=1:interlace=tff"
    images, reason = shown(write_clip(tmp_path / "clip.mp4", frames, "libx265", aspect, params=params))
    assert [image.size for image in images] == [size] * 3
    assert (np.diff(rgb(images[0]).mean(axis=(1, 2))) > -0.5).all()
    assert reason is None


@pytest.mark.parametrize("value_range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize(
    ("pixel_format", "bits"),
    [("yuv420p", 8), ("yuv422p", 8), ("yuv444p", 8), ("yuva420p", 8), ("yuv420p10le", 10), ("yuv422p12le", 12)],
)
def test_colours_are_those_of_the_tags(pixel_format: str, bits: int, matrix: int, value_range: int) -> None:
    turner = upright()
    for colour in COLOURS:
        values = (*levels(colour, matrix, value_range, bits), 128)
        image = turner(plain_frame(values, pixel_format, colorspace=matrix, color_range=value_range))
        assert np.abs(rgb(image) - colour).max() <= 3
    assert not turner.faults


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((704, 576), 6), ((1278, 576), 6), ((1280, 576), 1), ((720, 578), 1), ((1920, 1080), 1), ((640, 360), 6)],
)
@pytest.mark.parametrize("unsaid", [0, 2, 3])
def test_untagged_colours_are_taken_by_size(size: tuple[int, int], matrix: int, unsaid: int) -> None:
    turner = upright(size)
    for colour in COLOURS[:3]:
        frame = plain_frame(levels(colour, matrix, LIMITED), size=size, colorspace=unsaid)
        assert np.abs(rgb(turner(frame))[::8, ::8] - colour).max() <= 3
    assert not turner.faults


@pytest.mark.parametrize(
    ("size", "matrix", "said", "value_range"),
    [
        ((64, 48), 1, 1, LIMITED),
        ((64, 48), 9, 9, FULL),
        ((64, 48), 6, UNSPECIFIED, LIMITED),
        ((1280, 720), 1, UNSPECIFIED, LIMITED),
        ((1280, 720), 6, 6, LIMITED),
    ],
)
@pytest.mark.parametrize(("codec", "bits"), [("libx264", 8), ("libx264", 10), ("libx265", 8)])
def test_colours_of_clips(
    tmp_path: Path, codec: str, bits: int, size: tuple[int, int], matrix: int, said: int, value_range: int
) -> None:
    pixel_format = "yuv420p" if bits == 8 else "yuv420p10le"
    values = levels(COLOURS[0], matrix, value_range, bits)
    frames = [plain_frame(values, pixel_format, size, colorspace=said, color_range=value_range) for _ in range(3)]
    images, reason = shown(write_clip(tmp_path / "clip.mp4", frames, codec))
    assert np.abs(rgb(images[0])[::8, ::8] - COLOURS[0]).max() <= 4
    assert reason is None


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_colours_that_cannot_be_had_are_told(matrix: int) -> None:
    turner = upright()
    image = turner(plain_frame((126, 128, 128), colorspace=matrix))
    assert np.abs(rgb(image) - 128).max() <= 2
    assert turner.faults == Counter({f"frames in colours that cannot be had, matrix {matrix} of ITU-T H.273": 1})


@pytest.mark.parametrize("pixel_format", ["gbrp", "rgb24", "bgra", "pal8"])
def test_rgb_has_no_matrix(pixel_format: str) -> None:
    frame = plain_frame((90, 90, 90, 90), pixel_format, (1280, 16), colorspace=8)
    expected = frame.reformat(format="rgb24").to_ndarray()
    turner = upright((1280, 16))
    assert (rgb(turner(frame)) == expected).all()
    assert not turner.faults


@pytest.mark.parametrize(("value_range", "level"), [(LIMITED, 128), (FULL, 126)])
def test_grey_has_a_range(tmp_path: Path, value_range: int, level: int) -> None:
    frames = [plain_frame((126,), "gray", color_range=value_range) for _ in range(3)]
    images, _ = shown(write_clip(tmp_path / "clip.mp4", frames, "libx265"))
    assert np.abs(rgb(images[0]) - level).max() <= 1


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.581), (18, 0.75)])  # as ITU-R BT.2408 has it, 203 cd/m2
def test_hdr_is_shown_as_sdr(transfer: int, white: float) -> None:
    """Taken for SDR, white would be a middle grey."""
    turner = upright()
    for level, expected in ((64, 0), (round(64 + white * 876), 255)):
        frame = plain_frame((level, 512, 512), "yuv420p10le", colorspace=9, color_trc=transfer, color_primaries=3)
        assert np.abs(rgb(turner(frame)) - expected).max() <= 6


def test_ordinary_frames_are_libswscales(tmp_path: Path) -> None:
    """No rotation, square pixels, progressive, SD: what a plain conversion of the decoded frame gives, to the byte."""
    path = write_mp4(tmp_path / "clip.mp4", times(10, 10), size=(640, 360))
    with av.open(str(path)) as container:
        expected = [frame.reformat(format="rgb24", threads=1).to_ndarray() for frame in container.decode(video=0)]
    images, _ = shown(path, fps=10)
    assert len(images) == 10
    assert all((rgb(image) == each).all() for image, each in zip(images, expected, strict=True))


@pytest.mark.parametrize("width", [*range(41, 51), 852])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p"])
def test_every_column_is_written(width: int, pixel_format: str) -> None:
    turner = upright((width, 48))
    for fill in (7, 250):  # what lies in the memory that the picture gets
        before = [plain_frame((fill,), "rgb0", (width, 48)) for _ in range(3)]
        del before
        image = rgb(turner(plain_frame((126, 128, 128), pixel_format, (width, 48))))
        assert (image == image[0, 0]).all()


@pytest.mark.parametrize(
    ("size", "aspect", "reason"),
    [
        ((0, 48), None, "frames of 0x48 hold no pixels"),
        ((64, 0), None, "frames of 64x0 hold no pixels"),
        ((10_000, 4_001), None, "frames of 10000x4001 exceed 40,000,000 pixels"),
        ((4_000, 4_000), Fraction(3), "frames of 12000x4000 exceed 40,000,000 pixels"),
        ((4_000, 4_000), Fraction(1, 4), "frames of 4000x16000 exceed 40,000,000 pixels"),
        ((4_020, 20), None, "frames of 4020x20 are strips, longer than 200 times their width"),
        ((20, 3_000), Fraction(1, 2), "frames of 20x6000 are strips, longer than 200 times their width"),
    ],
)
def test_absurd_frames_are_refused(size: tuple[int, int], aspect: Fraction | None, reason: str) -> None:
    frame = SimpleNamespace(width=size[0], height=size[1], interlaced_frame=False)
    with pytest.raises(VideoError) as error:
        upright(size, aspect)(frame)
    assert str(error.value) == reason


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (7, 5), (17, 31)])
def test_small_frames_are_pictures(size: tuple[int, int]) -> None:
    image = upright(size)(plain_frame((126, 128, 128), size=size))
    assert image.size == size
    assert np.abs(rgb(image) - 128).max() <= 2


def test_frames_above_the_pixel_limit_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pixels, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    path = write_mp4(tmp_path / "clip.mp4", times(3, 10))
    with pytest.raises(VideoError, match=r"64x48 exceed 3,071 pixels"):
        shown(path)


def test_faults_are_counted_once_where_a_clip_is_decoded_anew(tmp_path: Path) -> None:
    """The third of five groups of pictures is damaged."""
    path = turn(write_mp4(tmp_path / "clip.mp4", times(50, 10)), 0.7, 0.7, -0.7, 0.7)
    with av.open(str(path)) as container:
        entry = container.streams.video[0].index_entries[20]
        position, size = entry.pos, entry.size
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    images, reason = shown(path, fps=1)
    assert reason is not None
    assert f"multiple of 90 degrees: {len(images)};" in reason + ";"
