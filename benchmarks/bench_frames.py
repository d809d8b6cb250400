"""Time one frame a second of 1080p H.264 clips: this project's way, the ffmpeg command, OpenCV, plain PyAV, torchcodec.

    python benchmarks/bench_frames.py --out outputs/bench_frames

It makes the clips itself, a moving scene under noise with B-frames, at three distances of keyframes. CPU seconds are a
process's own on one clip after another, less what the same process takes on a clip of one frame; wall seconds are of
more clips on all cores, start-up included. Ways take turns, so that a slow minute meets all. What isn't installed is
left out: ffmpeg, opencv-python-headless, torchcodec. With `--before FOLDER`, a checkout of an earlier version is one
more way.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import av
import numpy as np
from joblib import cpu_count
from PIL import Image

from benchmarks.arms.frames import ARMS, SECOND, sample_by_time
from benchmarks.measuring.machine import cpu_name, with_project
from data_prep.clips.records import frame_name
from data_prep.console import run_script
from data_prep.files import PROJECT_ROOT, from_root, write_json

GOPS = (25, 50, 250)
RATE, SECONDS, WIDTH, HEIGHT = 25, 20, 1920, 1080
CLIPS_IN_TURN, CLIPS_AT_ONCE = 3, 4
BEFORE = "before"
MODULES = {"opencv": "cv2", "torchcodec": "torchcodec"}  # what a way imports beyond the project's requirements


def main(argv: list[str]) -> int:
    """Make the clips, time every way in turns, compare frames, write bench_frames.json, print a table, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/bench_frames", help="folder to write (default: %(default)s)")
    parser.add_argument("--before", metavar="FOLDER", help="a checkout of an earlier version")
    parser.add_argument("--rounds", type=int, default=3, help="times every way is timed (default: %(default)s)")
    args = parser.parse_args(argv)
    out = from_root(args.out)
    out.mkdir(parents=True, exist_ok=True)
    folders = {BEFORE: from_root(args.before)} if args.before else {}
    arms = [arm for arm in (*folders, *ARMS) if is_installed(arm)]
    clips = {gop: make_clip(out / f"gop{gop}.mp4", gop, RATE * SECONDS) for gop in GOPS}
    shortest = make_clip(out / "one_frame.mp4", 1, 1)
    seconds: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    start_up: dict[str, list[float]] = defaultdict(list)
    for turn in range(args.rounds):
        for arm in arms:
            start_up[arm].append(timed(arm, [shortest], 1, out, folders)["cpu"])
            for gop, clip in clips.items():
                print(f"round {turn + 1}: {arm}, GOP {gop}", file=sys.stderr)
                seconds[arm, gop]["cpu"].append(timed(arm, [clip] * CLIPS_IN_TURN, 1, out, folders)["cpu"])
                seconds[arm, gop]["wall"].append(timed(arm, [clip] * CLIPS_AT_ONCE, cpu_count(), out, folders)["wall"])
    results = {
        "machine": machine(),
        "clips": {"width": WIDTH, "height": HEIGHT, "rate": RATE, "seconds": SECONDS, "at_once": CLIPS_AT_ONCE},
        "arms": [
            {"arm": arm, "gop": gop, **summary(taken, start_up[arm]), "frames": compared(arm, clips[gop], out, folders)}
            for (arm, gop), taken in seconds.items()
        ],
    }
    write_json(out / "bench_frames.json", results)
    print(as_table(results))
    print(json.dumps(results))
    return 0


def is_installed(arm: str) -> bool:
    """Say whether what a way needs is there, and on stderr if not."""
    needed = MODULES.get(arm, arm)
    if arm == "ffmpeg":
        found = shutil.which(needed) is not None
    else:
        found = arm not in MODULES or importlib.util.find_spec(needed) is not None
    if not found:
        print(f"{arm}: {needed} isn't installed, left out", file=sys.stderr)
    return found


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


def timed(
    arm: str, clips: list[Path], workers: int, out: Path, folders: Mapping[str, Path] = MappingProxyType({})
) -> dict[str, float]:
    """Return the CPU and wall seconds of one process that takes the clips' frames.

    A way of `folders` is this project's, as the checkout there has it.
    """
    folder = out / "frames"
    shutil.rmtree(folder, ignore_errors=True)
    project, way = folders.get(arm, PROJECT_ROOT), "ours" if arm in folders else arm
    command = [sys.executable, "benchmarks/arms/frames.py", way, "--out", str(folder), "--workers", str(workers)]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = with_project() if project == PROJECT_ROOT else {**os.environ, "PYTHONPATH": str(project)}
    subprocess.run([*command, "--clips", *map(str, clips)], cwd=project, env=env, check=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def summary(taken: dict[str, list[float]], start_up: list[float]) -> dict[str, Any]:
    """Return the medians of CPU seconds a clip, start-up apart, and of wall seconds for all clips at once; and all."""
    return {
        "cpu_seconds_a_clip": (median(taken["cpu"]) - median(start_up)) / CLIPS_IN_TURN,
        "wall_seconds": median(taken["wall"]),
        "measured": {**taken, "start_up_cpu": start_up},
    }


def compared(arm: str, clip: Path, out: Path, folders: Mapping[str, Path] = MappingProxyType({})) -> dict[str, float]:
    """Return how many frames a way gives, and how far they are from a full decode's, in grey levels on average.

    JPEG alone makes a few levels on noise; another frame of the scene makes more.
    """
    timed(arm, [clip], 1, out, folders)
    names = sorted(path.name for path in (out / "frames" / "0").iterdir())
    with av.open(str(clip)) as container:
        timed_frames = ((frame.pts * frame.time_base, frame) for frame in container.decode(video=0))
        truth = {
            frame_name(sample): np.asarray(frame.to_image(), np.int16)
            for sample, frame in sample_by_time(timed_frames, SECOND)
        }
    apart = [
        float(np.abs(np.asarray(Image.open(out / "frames" / "0" / name), np.int16) - truth[name]).mean())
        for name in names
        if name in truth
    ]
    return {"count": len(names), "largest_mean_difference": max(apart)}


def machine() -> dict[str, Any]:
    """Name what the figures were taken with."""
    from importlib.metadata import PackageNotFoundError, version

    def version_of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = ("av", "pillow", "joblib", "opencv-python-headless", "torchcodec", "torch")
    said = ""
    if shutil.which("ffmpeg"):
        said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    return {
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "python": platform.python_version(),
        **{package: version_of(package) for package in packages},
        "ffmpeg": said.split(" ", 3)[2] if said else None,
    }


def as_table(results: dict[str, Any]) -> str:
    """Lay out seconds, and how many times as much the others take."""
    arms = {(each["arm"], each["gop"]): each for each in results["arms"]}
    lines = [f"{'':<12}{'GOP':>5}{'CPU s a clip':>14}{'times ours':>12}{'wall s':>9}{'times ours':>12}{'frames':>8}"]
    for (arm, gop), each in arms.items():
        own = arms["ours", gop]
        lines.append(
            f"{arm:<12}{gop:>5}{each['cpu_seconds_a_clip']:>14.2f}"
            f"{each['cpu_seconds_a_clip'] / own['cpu_seconds_a_clip']:>12.1f}{each['wall_seconds']:>9.1f}"
            f"{each['wall_seconds'] / own['wall_seconds']:>12.1f}{each['frames']['count']:>8}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
