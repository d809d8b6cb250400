"""A clip of 1920x1080 H.264 in which something moves under a sensor's noise, for the benchmark of frames."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.made.drawn_frames import HEIGHT, WIDTH

RATE = 25  # frames a second


def make_clip(path: Path, gop: int, frames: int) -> Path:
    """Encode a clip, unless it is there: a box wanders over a still scene, under the noise of a sensor."""
    if path.is_file():
        return path
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 200, (18, 32, 3), dtype=np.uint8)
    scene = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
    noises = [rng.normal(0, 3, scene.shape).astype(np.int16) for _ in range(7)]
    unfinished = path.with_suffix(".part")
    with av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        params = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=3:b-adapt=0:colormatrix=smpte170m"
        stream.options = {"preset": "veryfast", "crf": "26", "x264-params": params}
        for number in range(frames):
            image = scene + noises[number % len(noises)]
            left = 3 * number % (WIDTH - 200)
            image[400:800, left : left + 160] = (230, 120, 40)
            picture = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    unfinished.replace(path)
    return path
