"""One frame a second of many clips as JPEG, by one way: `python benchmarks/arms/frames.py ARM --clips … --out DIR`.

Every way takes a clip in one thread, `--workers` clips at a time, by the same joblib loop.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from joblib import Parallel, delayed

from data_prep.clips.extraction import save_samples
from data_prep.clips.records import Settings, frame_name
from data_prep.media.frame_format import JPEG_QUALITY
from data_prep.media.video import Video

SECOND = Fraction(1)

Item = TypeVar("Item")


def sample_by_time(timed: Iterable[tuple[Fraction | int, Item]], rate: Fraction) -> Iterator[tuple[int, Item]]:
    """Yield (k, item) for every sample k, from (time, item) in order of presentation, all times being right.

    Sample k is the first item in [k, k + 1) / rate from the first item on; where there is none, there is no sample.
    `rate` is in samples a unit of the items' times, seconds or a stream's ticks.
    """
    start: Fraction | int | None = None
    last = -1
    for at, item in timed:
        start = at if start is None else start
        sample = int((at - start) * rate.numerator // rate.denominator)
        if sample > last:
            last = sample
            yield sample, item


def ours(clip: Path, out: Path) -> None:
    """Take the frames as extract_frames.py does."""
    with Video(clip) as video:
        save_samples(video, out, Settings(float(SECOND), JPEG_QUALITY))


def pyav(clip: Path, out: Path) -> None:
    """Decode every frame with PyAV and convert the ones that are kept."""
    import av

    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        timed = ((frame.pts * stream.time_base, frame) for frame in container.decode(stream))
        for sample, frame in sample_by_time(timed, SECOND):
            frame.to_image().save(out / frame_name(sample), quality=JPEG_QUALITY)


def opencv(clip: Path, out: Path) -> None:
    """Grab every frame with OpenCV and retrieve the ones that are kept."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    rate, number, sample = Fraction(capture.get(cv2.CAP_PROP_FPS)).limit_denominator(1001), 0, 0
    while capture.grab():
        if number / rate >= sample:
            path = str(out / frame_name(sample))
            cv2.imwrite(path, capture.retrieve()[1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            sample += 1
        number += 1


def torchcodec(clip: Path, out: Path) -> None:
    """Ask torchcodec for the frames played at every full second."""
    from PIL import Image
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(clip), dimension_order="NHWC", num_ffmpeg_threads=1)
    seconds = range(int(decoder.metadata.end_stream_seconds) + 1)
    shown = [second for second in seconds if second < decoder.metadata.end_stream_seconds]
    for sample, frame in enumerate(decoder.get_frames_played_at(shown).data):
        Image.fromarray(frame.numpy()).save(out / frame_name(sample), quality=JPEG_QUALITY)


def ffmpeg(clip: Path, out: Path) -> None:
    """Run the ffmpeg command with its fps filter, in one thread."""
    to_jpeg = ["-vf", "fps=1", "-q:v", "2", "-start_number", "0", "-threads", "1", str(out / "%04d.jpg")]
    subprocess.run(["ffmpeg", "-v", "error", "-threads", "1", "-i", str(clip), *to_jpeg], check=True)


ARMS: dict[str, Callable[[Path, Path], None]] = {arm.__name__: arm for arm in (ours, ffmpeg, opencv, pyav, torchcodec)}


def run(arm: str, clip: Path, out: Path) -> None:
    """Put one clip's frames into a folder of its own."""
    out.mkdir(parents=True)
    ARMS[arm](clip, out)


def main(argv: list[str]) -> int:
    """Take the frames of every clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("--clips", nargs="+", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the frames")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    Parallel(n_jobs=args.workers)(
        delayed(run)(args.arm, clip, args.out / str(number)) for number, clip in enumerate(args.clips)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
