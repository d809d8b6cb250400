import io
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from data_prep.errors import InputError
from data_prep.media import images
from data_prep.media.images import check_image, read_grey, read_image

NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def noise(image_format: str) -> bytes:
    return encoded(Image.fromarray(NOISE), image_format)


def test_png_is_read_exactly_from_path_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(noise("PNG"))
    for source in (tmp_path / "a.png", noise("PNG")):
        check_image(source, "a.png")
        image = read_image(source)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), NOISE)


def test_grey_and_palette_images_become_rgb() -> None:
    grey = Image.fromarray(NOISE).convert("L")
    assert read_image(encoded(grey, "JPEG")).mode == "RGB"
    assert read_image(encoded(grey.convert("P"), "PNG")).mode == "RGB"


def test_cmyk_becomes_the_rgb_that_it_stands_for() -> None:
    image = read_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = np.asarray(image)[8, 8].tolist()
    assert image.mode == "RGB" and red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    """The left half is clear, its hidden colour dark; the right half is black."""
    shown = Image.new("LA" if mode == "LA" else "RGBA", (32, 16))
    shown.paste((10, 0) if mode == "LA" else (10, 10, 10, 0), (0, 0, 16, 16))
    shown.paste((0, 255) if mode == "LA" else (0, 0, 0, 255), (16, 0, 32, 16))
    if mode == "P":
        content = encoded(
            shown.convert("RGB").quantize(4), "PNG", transparency=shown.convert("RGB").quantize(4).getpixel((0, 0))
        )
    else:
        content = encoded(shown, "PNG")
    image = read_image(content)
    assert image.mode == "RGB"
    assert (image.getpixel((4, 8)), image.getpixel((28, 8))) == ((255, 255, 255), (0, 0, 0))


def test_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    plain = Image.new("RGB", (8, 8), (1, 2, 3))
    image = read_image(encoded(plain, "PNG", transparency=(1, 2, 3)))
    assert (image.mode, image.getpixel((4, 4))) == ("RGB", (255, 255, 255))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    levels = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    image = read_image(encoded(Image.fromarray(levels), "PNG"))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image)[..., 1].astype(int) - levels // 256).max() <= 1


def test_exif_rotation_is_applied() -> None:
    left_dark = Image.fromarray(np.repeat(np.array([[0] * 32 + [255] * 32], np.uint8), 16, axis=0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees: the left side is on top then
    image = read_image(encoded(left_dark, "JPEG", exif=exif))
    assert image.size == (16, 64)
    assert image.getpixel((8, 8)) == (0, 0, 0)
    assert image.getpixel((8, 56)) == (255, 255, 255)


def damaged_exif(orientation: int) -> bytes:
    """EXIF data with an orientation, and an exposure bias of -1/0, which Pillow reads and can't write back."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, orientation) + struct.pack("<HHII", 0x9204, 10, 1, 38)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<Iii", 0, -1, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_whatever_else_the_exif_data_hold(orientation: int) -> None:
    """As ImageOps.exif_transpose turns a picture whose EXIF data are whole."""
    picture = Image.fromarray(np.arange(16 * 24, dtype=np.uint8).reshape(16, 24) // 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(picture, "PNG", exif=exif)))).convert("RGB")
    content = encoded(picture, "PNG", exif=damaged_exif(orientation)[6:])
    check_image(content, "a.png")
    np.testing.assert_array_equal(np.asarray(read_image(content)), np.asarray(expected))
    with pytest.raises(Exception, match="range"):
        ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(picture, "JPEG", exif=damaged_exif(6)))))


@pytest.mark.parametrize("size", [(7, 7), (1, 1), (2, 300), (300, 2)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_small_images_are_images(size: tuple[int, int], image_format: str) -> None:
    content = encoded(Image.new("RGB", size), image_format)
    check_image(content, "a")
    assert read_image(content).size == size
    assert min(read_grey(content, "a", 32).size) >= 1


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), struct.error("unpack"), KeyError(271)])
@pytest.mark.parametrize("read", [read_image, check_image])
def test_whatever_a_decoder_raises_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, read: Any) -> None:
    def fail(image: Image.Image) -> None:
        raise error

    monkeypatch.setattr(PngImageFile, "load", fail)
    with pytest.raises(InputError, match=r"^a: damaged image \(.+\)$"):
        read(noise("PNG"), "a")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, said in ((tmp_path / "pipe.jpg", "is no file"), (tmp_path, "is no file"), (Path("a\0b"), "no such")):
        with pytest.raises(InputError, match=f"frame: {said}"):
            read_image(path, "frame")


@pytest.mark.parametrize("image_format", ["GIF", "BMP", "TIFF", "WEBP", "PDF"])
def test_other_formats_are_refused(image_format: str) -> None:
    for read in (read_image, check_image):
        with pytest.raises(InputError, match=r"frame 7: not a readable image; allowed formats: JPEG, PNG"):
            read(noise(image_format), "frame 7")


@pytest.mark.parametrize("content", [b"", b"text", noise("JPEG")[:10]])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.jpg: not a readable image"):
        read_image(content, "a.jpg")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("read", [read_image, check_image])
def test_truncated_images_are_refused(image_format: str, read: object) -> None:
    content = noise(image_format)
    with pytest.raises(InputError, match="a: damaged image"):
        read(content[: len(content) * 2 // 3], "a")  # type: ignore[operator]


def test_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jpg: no such image"):
        read_image(tmp_path / "none.jpg")


@pytest.mark.parametrize("read", [read_image, check_image])
def test_pixel_limit_holds_before_decoding(monkeypatch: pytest.MonkeyPatch, read: object) -> None:
    """92 megapixels in some 11 kB; Pillow's own limit only warns at this size, and the user sees one line, not two."""
    warnings.simplefilter("error")
    bomb = encoded(Image.new("1", (9600, 9600)), "PNG")
    assert len(bomb) < 20_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(InputError, match=r"9600x9600 is 92,160,000 pixels; at most 40,000,000"):
        read(bomb, "bomb.png")  # type: ignore[operator]


def test_pixel_limit_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 64 * 96)
    assert read_image(noise("PNG")).size == (96, 64)
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 64 * 96 - 1)
    with pytest.raises(InputError, match="shrink it"):
        read_image(noise("PNG"))
