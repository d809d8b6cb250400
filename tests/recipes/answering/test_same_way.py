"""A picture goes to the model by one way, whoever brings it: a data set, a command line, a stream, the page."""

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from data_prep.clips.extraction import save_samples
from data_prep.clips.records import Settings
from data_prep.errors import InputError
from data_prep.hub.source import FramesSource, open_dataset
from data_prep.labels import LABELS
from data_prep.media.frame_format import FrameFormat
from data_prep.media.images import check_image, read_image
from data_prep.media.video import Video
from recipes.adapter.folder import find_adapter
from recipes.answering.adapted_model import load_for_batches
from recipes.answering.stream import answer
from recipes.batches.collator import VisionCollator
from recipes.batches.vision_cache import _Frames
from recipes.model.base import find_base
from recipes.model.loading import load_processor
from recipes.report.evaluated_split import blank_frame
from recipes.serving.answers import frames_of
from recipes.serving.strip import answer_file
from recipes.training.building import build_collator, vision_cache_of
from recipes.training.run import Run
from tests.conftest import Kept
from tests.made_clips import write_lively_mp4
from tests.recipes.answering.test_infer import Certain
from tests.tiny_data import FRAMES_PER_CLIP, many_clips, write_data

RED, GREEN, BLUE, WHITE = (200, 40, 40), (40, 160, 60), (40, 60, 180), (230, 230, 230)
UNSCALED = bytes([0]) + struct.pack(">HH", 1, 1)


def corners(*colours: tuple[int, int, int]) -> Image.Image:
    """Return 64 x 48 pixels in four fields: top left, top right, bottom left, bottom right."""
    image = Image.new("RGB", (64, 48))
    for number, colour in enumerate(colours):
        image.paste(colour, (32 * (number % 2), 24 * (number // 2), 32 * (number % 2) + 32, 24 * (number // 2) + 24))
    return image


PICTURE = corners(RED, GREEN, BLUE, WHITE)


def jpeg(image: Image.Image = PICTURE, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, **{"format": "JPEG", "quality": 95, **options})
    return content.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_density(unit: int, across: int, down: int, content: bytes | None = None) -> bytes:
    """State a density in a JPEG's JFIF header, as FFmpeg does with unit 0 for the frame of an anamorphic camera."""
    content = content or jpeg()
    head = content.index(b"JFIF\0") + 7
    assert content[head : head + 5] == UNSCALED
    return content[:head] + struct.pack(">BHH", unit, across, down) + content[head + 5 :]


def ycck() -> bytes:
    """A JPEG of four components in YCCK, as Photoshop writes them: luma and chroma of the inks, inverted, and black."""
    inks = [ImageOps.invert(band) for band in ImageOps.invert(PICTURE).convert("YCbCr").split()]
    content = jpeg(Image.merge("CMYK", [*inks, Image.new("L", PICTURE.size)]))
    marker = content.index(b"Adobe") + 11
    assert content[marker] == 0
    return content[:marker] + b"\x02" + content[marker + 1 :]


def png(image: Image.Image, aspect: tuple[int, int]) -> bytes:
    """A PNG that states a pixel aspect as FFmpeg does, in pHYs, without a unit."""
    content = jpeg(image, format="PNG", dpi=(100, 100))
    at = content.index(b"pHYs")
    chunk = b"pHYs" + struct.pack(">IIB", *aspect, 0)
    return content[:at] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[at + len(chunk) + 4 :]


def damaged_list(content: bytes) -> bytes:
    """Damage a multi-picture file's list of pictures: its first one is whole."""
    at = content.index(b"MPF\0") + 4
    return content[:at] + b"MM\0*\xff\xff\xff\xff" + content[at + 8 :]


MULTI = jpeg(format="MPO", save_all=True, append_images=[ImageOps.invert(PICTURE)])
AS_IT_IS = ((64, 48), (RED, GREEN, BLUE, WHITE))
GREY = tuple((level,) * 3 for level in PICTURE.convert("L").resize((2, 2), Image.Resampling.NEAREST).tobytes())

# What comes of a file: width and height, and the colours of its four fields.
ODD: dict[str, tuple[bytes, tuple[tuple[int, int], tuple[Any, ...]]]] = {
    "plain": (jpeg(), AS_IT_IS),
    "progressive": (jpeg(progressive=True), AS_IT_IS),
    "restart markers": (jpeg(restart_marker_blocks=2), AS_IT_IS),
    "not subsampled": (jpeg(subsampling=0), AS_IT_IS),
    "grey": (jpeg(PICTURE.convert("L")), ((64, 48), GREY)),
    "RGB": (jpeg(keep_rgb=True), AS_IT_IS),
    "CMYK": (jpeg(PICTURE.convert("CMYK")), AS_IT_IS),
    "YCCK": (ycck(), AS_IT_IS),
    "colour profile": (jpeg(icc_profile=b"a profile that nobody reads" * 9), AS_IT_IS),
    "several pictures": (MULTI, AS_IT_IS),
    "several pictures, their list damaged": (damaged_list(MULTI), AS_IT_IS),
    "another file behind it": (jpeg() + jpeg(ImageOps.invert(PICTURE)), AS_IT_IS),
    "orientation": (jpeg(exif=turned(6)), ((48, 64), (BLUE, RED, WHITE, GREEN))),
    "mirrored": (jpeg(exif=turned(2)), ((64, 48), (GREEN, RED, WHITE, BLUE))),
    "wide pixels": (with_density(0, 64, 45), ((91, 48), AS_IT_IS[1])),
    "high pixels": (with_density(0, 3, 4), ((64, 64), AS_IT_IS[1])),
    "wide pixels, turned": (
        with_density(0, 2, 1, jpeg(exif=turned(6))),
        ((48, 128), (BLUE, RED, WHITE, GREEN)),
    ),
    "wide pixels in a PNG": (png(PICTURE, (64, 45)), ((91, 48), AS_IT_IS[1])),
    "wide pixels in a PNG of a palette": (png(PICTURE.quantize(4), (2, 1)), ((128, 48), AS_IT_IS[1])),
    "density for paper": (with_density(1, 72, 36), AS_IT_IS),
    "pixels that are all but square": (with_density(0, 200, 201), AS_IT_IS),
    "pixels like needles": (with_density(0, 1, 9999), AS_IT_IS),
    "no density": (with_density(0, 0, 0), AS_IT_IS),
}
REFUSED = {
    "12 bits": (jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "not a readable image"),
    "cut off": (jpeg()[:-40], "damaged image"),
    "pixels that fill the memory": (
        with_density(0, 1, 4, jpeg(Image.new("L", (3200, 3200)))),
        "3200x12800 is 40,960,000 pixels",
    ),
}


class Shown(Certain):
    """A model that keeps what it is shown."""

    def __init__(self) -> None:
        self.images: list[Image.Image] = []

    def p_unsafe(self, images: list[Any]) -> list[float]:
        self.images += images
        return super().p_unsafe(images)


def on_command_line(path: Path) -> Image.Image:
    model: Any = Shown()
    answer(str(path), model, None)
    return model.images[0]


def on_page(path: Path) -> Image.Image:
    ((_, image),) = frames_of(path, FrameFormat(32, 10))
    return image


READERS: dict[str, Callable[[Path], Image.Image]] = {
    "path": read_image,
    "bytes": lambda path: read_image(path.read_bytes()),
    "infer": on_command_line,
    "page": on_page,
}


@pytest.fixture(scope="module")
def collator(small_base: Path) -> VisionCollator:
    return VisionCollator(load_processor(small_base), 100352)


@pytest.fixture(scope="module")
def as_data_set(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The odd files as the frames of a data set, in the order of ODD; others follow."""
    folder = tmp_path_factory.mktemp("odd")
    clips = many_clips()
    data = write_data(folder / "data", clips)
    frames = [data / path for clip in clips if clip.split == "test" for path in clip.frame_paths]
    frames += [data / path for clip in clips if clip.split == "train" for path in clip.frame_paths]
    for path, (content, _) in zip(frames, ODD.values(), strict=False):
        path.write_bytes(content)
    assert len(frames) > len(ODD) > 8 * FRAMES_PER_CLIP
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "hf")
        source = open_dataset(str(data))
        return {row["image"]["bytes"]: row for split in source.dataset for row in source.rows(split)}


@pytest.mark.parametrize("name", ODD)
def test_odd_picture_is_the_same_in_every_way_to_the_model(
    tmp_path: Path, collator: VisionCollator, as_data_set: dict[bytes, Any], name: str
) -> None:
    content, (size, colours) = ODD[name]
    path = tmp_path / ("a.png" if content.startswith(b"\x89PNG") else "a.jpg")
    path.write_bytes(content)
    check_image(path, "a")
    expected = read_image(path)
    assert (expected.mode, expected.size) == ("RGB", size)
    for number, colour in enumerate(colours):
        x, y = (size[0] * (1 + 2 * (number % 2)) // 4, size[1] * (1 + 2 * (number // 2)) // 4)
        np.testing.assert_allclose(np.asarray(expected)[y, x], colour, atol=16, err_msg=f"field {number}")
    for way, read in READERS.items():
        np.testing.assert_array_equal(np.asarray(read(path)), np.asarray(expected), err_msg=way)
    patches = collator.pixels([{"image": expected}])["pixel_values"]
    row = as_data_set[content]
    for batch in (collator.vision([row]), _Frames(collator)([content])[1]):
        assert torch.equal(batch["pixel_values"], patches)
    assert read_image(blank_frame(row)["image"]["bytes"]).size == size


@pytest.mark.parametrize("name", REFUSED)
def test_picture_that_is_refused_is_refused_in_every_way(tmp_path: Path, collator: VisionCollator, name: str) -> None:
    content, said = REFUSED[name]
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    ways: list[Callable[[], Any]] = [lambda read=read: read(path) for read in READERS.values()]  # type: ignore[misc]
    ways += [lambda: check_image(path, "a"), lambda: collator.pixels([{"image": {"bytes": content}}])]
    for way in ways:
        with pytest.raises(InputError, match=said):
            way()


def extracted(clip: Path, folder: Path, settings: Settings) -> list[Path]:
    folder.mkdir()
    with Video(clip) as video:
        save_samples(video, folder, settings)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("kept_as", [FrameFormat(), FrameFormat(96, 40)])
def test_clip_on_the_page_shows_what_extraction_would_have_written(tmp_path: Path, kept_as: FrameFormat) -> None:
    clip = tmp_path / "clip.mp4"
    write_lively_mp4(clip, {}, frames=60)
    frames = extracted(clip, tmp_path / "frames", Settings(1.0, kept_as.jpeg_quality, kept_as.max_side))
    shown = [image for _, image in frames_of(clip, kept_as)]
    assert len(shown) == len(frames) == 3
    for image, path in zip(shown, frames, strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(read_image(path)))


def test_adapter_is_asked_as_its_data_were_kept(kept: Kept, tmp_path: Path) -> None:
    """P of a clip's frames on the page is that of extraction's files, and larger pictures are shrunk as those were."""
    run = tmp_path / "run"
    shutil.copytree(kept.run, run)
    record = json.loads((run / "safety.json").read_text())
    record |= {"schema_version": 3, "frames": {"max_side": 96, "jpeg_quality": 40}, "max_pixels": 100352}
    (run / "safety.json").write_text(json.dumps(record))
    adapted = load_for_batches(find_adapter(run))
    assert adapted.record.frames is not None

    clip = tmp_path / "clip.mp4"
    write_lively_mp4(clip, {}, frames=60)
    files = extracted(clip, tmp_path / "frames", Settings(1.0, 40, 96))
    *_, (seen, _) = answer_file(str(clip), 0.5, lambda image: adapted.p_unsafe([image])[0], adapted.record.frames)
    assert [frame.p_unsafe for frame in seen] == [answer(str(file), adapted, None)["p_unsafe"] for file in files]

    with Video(clip) as video:
        native = next(image.convert("RGB") for _, image in video.samples(Fraction(1)))
    small = native.copy()
    small.thumbnail((96, 96), Image.Resampling.BICUBIC)
    for image, name in ((native, "native.png"), (small, "small.png")):
        image.save(tmp_path / name)
    asked = [answer(str(tmp_path / name), adapted, None)["p_unsafe"] for name in ("native.png", "small.png")]
    assert asked[0] == asked[1] and native.size == (160, 128)
    assert adapted.collator.max_side == adapted.card_collator.max_side == 96


def test_training_keeps_to_its_data_s_side_and_writes_down_how_they_were_kept(small_base: Path, tmp_path: Path) -> None:
    def run(frames: FrameFormat | None) -> Run:
        source = FramesSource(datasets.DatasetDict(), "local/tiny", None, "ab", None, frames)
        rows = {"response": list(LABELS)}
        parts: dict[str, Any] = {
            "prompt": "?",
            "recipe": SimpleNamespace(max_pixels=100352, balance_labels=True, vision_cache=str(tmp_path)),
            "model": SimpleNamespace(dtype="float32", load_in_4bit=False),
            "training": SimpleNamespace(seed=0, output_dir=str(tmp_path / "run")),
            "base": find_base(str(small_base)),
            "source": SimpleNamespace(**vars(source), max_side=source.max_side, rows=lambda split: rows),
        }
        return Run(**parts)

    known, unknown = run(FrameFormat(640, 80)), run(None)
    assert known.safety_record(0.5, "fixed").frames == FrameFormat(640, 80)
    assert unknown.safety_record(0.5, "fixed").frames is None
    assert [build_collator(each).max_side for each in (known, unknown)] == [640, None]
    assert vision_cache_of(known).folder != vision_cache_of(unknown).folder
