"""A decoded frame's pixels as players show them: whole pictures, in RGB, of square pixels, upright.

What the clip says is taken at its word: display matrix, pixel aspect ratio, interlacing, matrix coefficients, range and
transfer characteristics. What it doesn't say is taken as players take it; what cannot be is counted, in words.
"""

import math
import struct
from collections import Counter
from fractions import Fraction
from typing import Any

import av
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation, VideoReformatter
from PIL import Image

from data_prep.errors import VideoError
from data_prep.media.images import MAX_ASPECT_RATIO, MAX_IMAGE_PIXELS, MAX_PIXEL_ASPECT, square_size

_FIELD_BELOW = Fraction(2, 3)  # no whole picture in use has pixels so flat

# How Pillow turns a frame, by the signs of a, b, c, d of its display matrix: a pixel at (x, y) of the coded picture is
# shown at (a x + c y, b x + d y), y pointing down (ISO/IEC 14496-12, 8.3.2; libavutil/display.h). Zeros say nothing.
_UPRIGHT: dict[tuple[int, ...], Image.Transpose | None] = {
    (0, 0, 0, 0): None,
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}
_DEGREE = math.tan(math.radians(1))  # less of a slant is none, as for ffplay

# Matrix coefficients, primaries and ranges by their numbers in ITU-T H.273. The matrices are those that libswscale has:
# BT.709, FCC, BT.470 BG, SMPTE 170M, SMPTE 240M, BT.2020 with non-constant luminance.
_BT709, _BT601, _BT2020 = 1, 6, 9
_MATRICES = {_BT709, 4, 5, _BT601, 7, _BT2020}
_UNSAID_MATRICES = {0, 2, 3}  # that of RGB, said of what is none; unspecified; reserved
_PRIMARIES = {1, *range(4, 13), 22}
_LIMITED = 1
_HDR = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
_TO_SDR: dict[str, int] = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
_TO_FULL_RANGE = [min(max(round((level - 16) * 255 / 219), 0), 255) for level in range(256)]


class Upright:
    """Turns the frames of a stream, opened and decoded with PyAV, into pictures; called with one after another.

    `faults` counts, in words, the frames that could not be shown as the clip asks for.
    """

    def __init__(self, stream: Any) -> None:
        self.faults: Counter[str] = Counter()
        self._matrix: tuple[float, ...] = (0, 0, 0, 0)
        self._rotation: int | None = None  # of the last frame, in degrees
        self._reformatter = VideoReformatter()
        self.reopen(stream)

    def reopen(self, stream: Any) -> None:
        """Go on with the same stream, opened once more."""
        self._decoder = stream.codec_context
        self._stated_size = (stream.width, stream.height)
        self._stated_aspect = stream.sample_aspect_ratio  # the container's, else the bitstream's, as players choose

    def __call__(self, frame: Any) -> Image.Image:
        """Return a decoded frame as an upright image of square pixels in mode RGBX: RGB and a byte of padding.

        Raises VideoError for a frame above the pixel limit or the aspect ratio of images.py, as it is or as it is to
        be shown, and for one that cannot be turned into RGB.
        """
        _check_size(frame.width, frame.height)
        size = self._shown_size(frame)
        _check_size(*size)
        said = self._set_colours(frame)
        if 1 <= frame.width % 8 <= 4:  # libswscale's fast conversion leaves that many columns unwritten at the right
            said = said | {"interpolation": Interpolation.BILINEAR | Interpolation.ACCURATE_RND}
        is_limited_grey = frame.color_range == _LIMITED and frame.format.name.startswith("gray")
        try:
            whole = _whole(frame, is_field=self._is_field(frame)) if frame.interlaced_frame else frame
            pixels: Any = self._reformatter.reformat(whole, *size, format="rgb0", threads=1, **said).planes[0]
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(f"frames in {frame.format.name} cannot be turned into RGB ({error})") from None
        # Pillow takes these four bytes a pixel as they lie; frame.to_image() copies them twice, which costs five times
        # the conversion.
        image = Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", pixels.line_size, 1)
        if is_limited_grey:  # libswscale takes all grey for full range
            image = image.point(_TO_FULL_RANGE * 4)
        turn = self._turn(frame)
        return image if turn is None else image.transpose(turn)

    def _shown_size(self, frame: Any) -> tuple[int, int]:
        """Return width and height where pixels are square, before the turn: the side that is too short is stretched."""
        size = frame.width, frame.height
        aspect = (self._stated_aspect if size == self._stated_size else self._decoder.sample_aspect_ratio) or 1
        if not Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT:
            self.faults[f"frames left unstretched, whose pixels are said to be {aspect} times as wide as high"] += 1
            aspect = 1
        if self._is_field(frame) and aspect > _FIELD_BELOW:  # else it is the field's own
            aspect = Fraction(aspect) / 2
        return square_size(size, Fraction(aspect))

    def _is_field(self, frame: Any) -> bool:
        """Whether a frame is every other line of a picture: HEVC codes interlaced material so, as pictures of its own.

        One is shown at its full height; the other field of the picture is another frame.
        """
        return bool(frame.interlaced_frame and self._decoder.name == "hevc")

    def _set_colours(self, frame: Any) -> dict[str, int]:
        """Tell a frame what its colours mean where it doesn't know itself; returns what reformat is to be told."""
        if not (frame.colorspace in _MATRICES or frame.format.is_rgb or len(frame.format.components) < 3):
            if frame.colorspace not in _UNSAID_MATRICES:
                self.faults[f"frames in colours that cannot be had, matrix {frame.colorspace} of ITU-T H.273"] += 1
            # As mpv guesses; SDL and VLC take more than 576 lines for BT.709, Chromium 720 or more.
            frame.colorspace = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
        if frame.color_trc not in _HDR:
            return {}
        if frame.color_primaries not in _PRIMARIES:
            frame.color_primaries = ColorPrimaries.BT2020
        return _TO_SDR

    def _turn(self, frame: Any) -> Image.Transpose | None:
        """Return how Pillow turns a frame upright; a matrix holds until another is said.

        The container's comes with every frame, one in the bitstream with some. It is looked for where the angle
        changes: a frame that was asked for its side data is a cycle, whose pixels are freed late.
        """
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            self._matrix = _display_matrix(frame) or self._matrix
        least = _DEGREE * max(map(abs, self._matrix))
        signs = tuple((entry > least) - (entry < -least) for entry in self._matrix)
        if signs not in _UPRIGHT:
            self.faults["frames left unturned, whose display matrix is no turn by a multiple of 90 degrees"] += 1
        return _UPRIGHT.get(signs)


def _check_size(width: int, height: int) -> None:
    if not width or not height:
        raise VideoError(f"frames of {width}x{height} hold no pixels")
    if width * height > MAX_IMAGE_PIXELS:
        raise VideoError(f"frames of {width}x{height} exceed {MAX_IMAGE_PIXELS:,} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise VideoError(f"frames of {width}x{height} are strips, longer than {MAX_ASPECT_RATIO} times their width")


def _display_matrix(frame: Any) -> tuple[float, ...] | None:
    """Return a, b, c and d of a frame's display matrix; of two, the first, which is the container's."""
    try:
        found = next((data for data in frame.side_data if data.type is Type.DISPLAYMATRIX), None)
    except ValueError:  # PyAV has no name for something else that goes with the frame, a JPEG's EXIF data for one
        angle = -math.radians(frame.rotation)
        return (math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)) if angle else None
    if found is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(found))
    return a, b, c, d


def _whole(frame: Any, *, is_field: bool) -> Any:
    """Return an interlaced frame as its first field shows it; where nothing moved in between, both give their lines.

    yadif without a frame before and after takes this one for its neighbours: it replaces those lines of the second
    field that stand out from the first's above and below, and leaves the others. A field alone is said to be no frame
    of two, or libswscale would scale every other line by itself.
    """
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    whole = graph.add("setfield", "prog") if is_field else graph.add("yadif")
    graph.link_nodes(source, whole, graph.add("buffersink")).configure()
    graph.push(frame)
    graph.push(None)
    return graph.pull()
