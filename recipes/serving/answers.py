"""The frames of a file that someone brings, to be asked about one by one."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image

from data_prep.errors import InputError, VideoError
from data_prep.media.frame_format import FrameFormat
from data_prep.media.images import read_image
from data_prep.media.video import Video

IMAGE_SUFFIXES, CLIP_SUFFIXES = (".jpg", ".jpeg", ".png"), (".mp4",)

MOST_SECONDS = 120  # of a clip


Score = Callable[[Image.Image], float]


def frames_of(path: Path, kept_as: FrameFormat) -> Iterator[tuple[str, Image.Image]]:
    """Yield the frames to be asked about, each with where it is from: a picture itself, of a clip one a second.

    A clip's are those of the JPEG files that extraction would write, keeping them as training's. A picture is never
    encoded anew: like a data set's, it has had what compression it has had.
    Raises InputError for anything else, for damaged files, and for clips longer than MOST_SECONDS.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        yield path.name, read_image(path, path.name)
        return
    if path.suffix.lower() not in CLIP_SUFFIXES:
        raise InputError(f"{path.name} is neither a frame (JPEG, PNG) nor a clip (MP4)")
    try:
        with Video(path) as video:
            if (video.duration_seconds or 0) > MOST_SECONDS:
                raise InputError(f"{path.name} lasts longer than {MOST_SECONDS} s; cut it")
            taken = 0
            for second, image in video.samples(Fraction(1)):
                if second >= MOST_SECONDS:
                    raise InputError(f"{path.name} lasts longer than {MOST_SECONDS} s; cut it")
                taken += 1
                yield f"second {second}", read_image(kept_as.encoded(image))
            if not taken:
                raise InputError(f"{path.name}: no frame can be read ({video.reason})")
    except VideoError as error:
        raise InputError(f"{path.name}: not a readable clip ({error})") from None
