"""Opening one frame: formats by allow-list, a pixel limit before decoding, upright RGB."""

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from data_prep.errors import InputError

IMAGE_FORMATS = ("JPEG", "PNG")
MAX_ASPECT_RATIO = 200  # what Qwen2-VL's preprocessing accepts
MAX_IMAGE_PIXELS = 40_000_000  # above an 8K frame (33.2 megapixels); far below what a decompression bomb holds


def _open(source: Path | bytes, name: str) -> Image.Image:
    try:
        # Pillow warns of a size between its own two limits; ours lies below both and raises, so one line is said.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=IMAGE_FORMATS)
    except FileNotFoundError:
        raise InputError(f"{name}: no such image") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        raise InputError(f"{name}: not a readable image; allowed formats: {', '.join(IMAGE_FORMATS)}") from None
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        image.close()
        raise InputError(
            f"{name}: {image.width}x{image.height} is a strip, longer than {MAX_ASPECT_RATIO} times its width"
        )
    if image.width * image.height > MAX_IMAGE_PIXELS:
        image.close()
        raise InputError(
            f"{name}: {image.width}x{image.height} is {image.width * image.height:,} pixels; "
            f"at most {MAX_IMAGE_PIXELS:,} are allowed; shrink it"
        )
    return image


def read_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Decode a JPEG or PNG, given as a path or as its bytes, into an upright RGB image.

    What is transparent becomes white, as most viewers show it; 16 bits a pixel become 8.
    `name` stands for the image in errors. Raises InputError for another format, a damaged or too large image.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    with _open(source, name) as image:
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _as_rgb(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{name}: damaged image ({error})") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # convert would clip all that is above 255
        import numpy as np  # takes a fifth of a second, for a kind of picture that hardly comes

        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def read_grey(source: Path | bytes, name: str, side: int) -> Image.Image:
    """Decode a JPEG or PNG in grey, a JPEG at a fraction of its size that leaves no side below `side` pixels.

    Raises InputError as `read_image` does.
    """
    with _open(source, name) as image:
        try:
            image.draft("L", (side, side))
            return image.convert("L")
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{name}: damaged image ({error})") from None


def check_image(source: Path | bytes, name: str) -> None:
    """Raise InputError unless the image is an allowed format, within the pixel limit and whole.

    A JPEG is decoded at an eighth of its size, which reads all of it and costs a fraction of a full decode.
    """
    with _open(source, name) as image:
        try:
            image.draft("RGB", (image.width // 8, image.height // 8))
            image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{name}: damaged image ({error})") from None
