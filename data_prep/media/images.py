"""Opening one frame: formats by allow-list, a pixel limit before decoding, upright RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from threading import Lock

from PIL import Image, UnidentifiedImageError

from data_prep.disk.disk_errors import told
from data_prep.errors import InputError

IMAGE_FORMATS = ("JPEG", "PNG")
MAX_ASPECT_RATIO = 200  # what Qwen2-VL's preprocessing accepts
MAX_PIXEL_ASPECT = 4  # what is further from square, either way, is a damaged header; formats in use stay below 2.5
MAX_IMAGE_PIXELS = 40_000_000  # above an 8K frame (33.2 megapixels); far below what a decompression bomb holds

_SQUARE_WITHIN = Fraction(1, 100)  # a rounded size; stretching would blur all for what nobody sees
_ORIENTATION = 0x0112  # the EXIF tag; what its values mean stands in the EXIF standard, CIPA DC-008
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_WARNINGS_OFF = Lock()  # Python has one list of filters for all threads, which decode a batch's frames at once


def _open(source: Path | bytes, name: str) -> Image.Image:
    if isinstance(source, Path):
        _check_file(source, name)
    try:
        # Pillow warns of a size between its own two limits; ours lies below both and raises, so one line is said. And
        # of a JPEG whose list of further pictures is damaged: the first, which is the one taken, is none the worse.
        with _WARNINGS_OFF, warnings.catch_warnings(action="ignore"):
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=IMAGE_FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise InputError(f"{name}: not a readable image; allowed formats: {', '.join(IMAGE_FORMATS)}") from None
    except Exception as error:  # whatever a decoder raises on bytes that somebody made up
        if refused := told(error, name):
            raise InputError(refused) from None
        raise InputError(f"{name}: not a readable image ({_in_words(error)}); make it anew") from None
    try:
        for width, height in (image.size, square_size(image.size, _pixel_aspect(image))):
            _check_size(width, height, name)
    except InputError:
        image.close()
        raise
    return image


def _check_size(width: int, height: int, name: str) -> None:
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(f"{name}: {width}x{height} is a strip, longer than {MAX_ASPECT_RATIO} times its width")
    if width * height > MAX_IMAGE_PIXELS:
        raise InputError(
            f"{name}: {width}x{height} is {width * height:,} pixels; "
            f"at most {MAX_IMAGE_PIXELS:,} are allowed; shrink it"
        )


def _check_file(path: Path, name: str) -> None:
    """Raise InputError unless a file lies there: a pipe or a device might never end."""
    try:
        if path.is_file():
            return
        reason = "is no file" if path.exists() else "no such image"
    except (OSError, ValueError) as error:  # a folder that may not be looked into; a name that no file can have
        raise InputError(told(error, name) or f"{name}: {_in_words(error)}") from None
    raise InputError(f"{name}: {reason}")


@contextmanager
def _whole(name: str) -> Iterator[None]:
    """Raise InputError for whatever a decoder raises on damaged bytes: that is any kind of exception."""
    try:
        yield
    except MemoryError:
        raise InputError(f"{name}: too large for the memory that is free; shrink it") from None
    except Exception as error:
        raise InputError(told(error, name) or f"{name}: damaged image ({_in_words(error)})") from None


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__


def read_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Decode a JPEG or PNG, given as a path or as its bytes, into an upright RGB image.

    Every picture that a model sees comes through here: a data set's, a stream's, the page's. Pixels that the file says
    aren't square are made so, as players show the clips of that camera. What is transparent becomes white, as most
    viewers show it; 16 bits a pixel become 8. Of the EXIF data only the orientation is read, and colours are taken for
    sRGB whatever a profile says, as a clip's are. Of several pictures in one file the first is taken. `name` stands for
    the image in errors. Raises InputError for another format, a damaged or too large image.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    with _open(source, name) as image, _whole(name):
        image.load()
        return _upright(_square(_as_rgb(image), _pixel_aspect(image)), image.getexif().get(_ORIENTATION, 1))


def _pixel_aspect(image: Image.Image) -> Fraction:
    """Return a pixel's width over its height, as FFmpeg and GStreamer write and read it in JPEG and PNG files.

    That is where the density has no unit; one in dots an inch or a metre is for paper, and isn't looked at by viewers.
    """
    stated = image.info.get("jfif_density") if image.info.get("jfif_unit") == 0 else image.info.get("aspect")
    aspect = Fraction(*stated) if stated and all(stated) else Fraction(1)
    return aspect if Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT else Fraction(1)


def square_size(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """Return the (width, height) at which pixels of `aspect`, width over height, are square: one side is stretched."""
    width, height = size
    if abs(aspect - 1) < _SQUARE_WITHIN:
        return size
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def _square(image: Image.Image, aspect: Fraction) -> Image.Image:
    size = square_size(image.size, aspect)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turned = _UPRIGHT.get(orientation)
    return image if turned is None else image.transpose(turned)


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
    with _open(source, name) as image, _whole(name):
        image.draft("L", (side, side))
        return image.convert("L")


def check_image(source: Path | bytes, name: str) -> None:
    """Raise InputError unless the image is an allowed format, within the pixel limit and whole.

    A JPEG is decoded at an eighth of its size, which reads all of it and costs a fraction of a full decode.
    """
    with _open(source, name) as image, _whole(name):
        image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()
        image.getexif()
