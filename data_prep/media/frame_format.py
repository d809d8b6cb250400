"""How a clip's frame becomes the JPEG that a model is trained on, so that another frame can go the same way."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from PIL import Image

from data_prep.errors import InputError

JPEG_QUALITY = 90  # about 0.4 MB a frame of 1080p; the model sees it shrunk to a fifth of its pixels
MIN_SIDE = 28  # pixels to a side of one visual token of Qwen2-VL


@dataclass(frozen=True)
class FrameFormat:
    """How extraction keeps frames: shrunk to at most `max_side` pixels a side, as JPEG of `jpeg_quality` (1 to 95).

    With a `max_side` of None every frame keeps its size. The default is extraction's own.
    """

    max_side: int | None = None
    jpeg_quality: int = JPEG_QUALITY

    def __post_init__(self) -> None:
        if type(self.jpeg_quality) is not int or not 1 <= self.jpeg_quality <= 95:
            raise InputError(f"jpeg quality {self.jpeg_quality} is outside 1 to 95")
        if self.max_side is not None and (type(self.max_side) is not int or self.max_side < MIN_SIDE):
            raise InputError(f"max side {self.max_side} is below {MIN_SIDE} pixels, one visual token")

    def write(self, image: Image.Image, file: IO[bytes]) -> tuple[int, int]:
        """Write a clip's upright frame, of mode RGB or RGBX, as JPEG, and return the (width, height) that it has there.

        Raises OSError where it can't be written.
        """
        kept = shrunk_to(image, self.max_side)
        kept.save(file, format="JPEG", quality=self.jpeg_quality)
        return kept.size

    def encoded(self, image: Image.Image) -> bytes:
        """Return what `write` writes of a frame."""
        content = io.BytesIO()
        self.write(image, content)
        return content.getvalue()


def shrunk_to(image: Image.Image, max_side: int | None) -> Image.Image:
    """Return an image shrunk to at most `max_side` pixels a side, its proportions kept; itself where it is no larger.

    The image must be decoded: one that is still a JPEG would be decoded at another size.
    """
    if max_side is None or max(image.size) <= max_side:
        return image
    small = image.copy()
    small.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return small


def common_format(formats: Iterable[FrameFormat]) -> FrameFormat | None:
    """Return the one format that all frames have, None where they have several."""
    found = set(formats)
    return found.pop() if len(found) == 1 else None
