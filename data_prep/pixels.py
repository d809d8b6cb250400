"""A decoded frame's pixels as players show them: upright, in RGB."""

from typing import Any

import av
from PIL import Image

from data_prep.errors import VideoError
from data_prep.images import MAX_IMAGE_PIXELS

# How Pillow turns a frame that the container says to turn by so many degrees, counter-clockwise.
_UPRIGHT = {
    90: Image.Transpose.ROTATE_90,
    -90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
}


def upright_rgb(frame: Any) -> Image.Image:
    """Return a decoded frame as an upright image in mode RGBX: RGB and a byte of padding.

    Raises VideoError for a frame above the pixel limit of images.py and for one that cannot be turned into RGB.
    """
    if frame.width * frame.height > MAX_IMAGE_PIXELS:
        raise VideoError(f"frames of {frame.width}x{frame.height} exceed {MAX_IMAGE_PIXELS:,} pixels")
    try:
        pixels = frame.reformat(format="rgb0", threads=1).planes[0]
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"frames in {frame.format.name} cannot be turned into RGB ({error})") from None
    # Pillow takes these four bytes a pixel as they lie; frame.to_image() copies them twice, which costs five times the
    # conversion.
    size = (frame.width, frame.height)
    image = Image.frombuffer("RGBX", size, pixels, "raw", "RGBX", pixels.line_size, 1)
    turn = _UPRIGHT.get(frame.rotation)
    return image if turn is None else image.transpose(turn)
