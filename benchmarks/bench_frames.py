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
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from joblib import cpu_count
from PIL import Image

from benchmarks.arms.frames import ARMS, SECOND, sample_by_time
from benchmarks.made.drawn_frames import HEIGHT, WIDTH
from benchmarks.made.moving_clip import RATE, make_clip
from benchmarks.measuring.checkouts import checkouts
from benchmarks.measuring.machine import machine_with, with_project
from data_prep.clips.records import frame_name
from data_prep.console import run_script
from data_prep.files import PROJECT_ROOT, from_root, write_json

SCRIPT = "benchmarks/arms/frames.py"
GOPS = (25, 50, 250)
SECONDS = 20
CLIPS_IN_TURN, CLIPS_AT_ONCE = 3, 4
BEFORE = "before"
PACKAGES = ("av", "pillow", "joblib", "opencv-python-headless", "torchcodec", "torch")
MODULES = {"opencv": "cv2", "torchcodec": "torchcodec"}  # what a way imports beyond the project's requirements


@dataclass(frozen=True)
class Way:
    """One way to take frames: by its name among ARMS, or this project's as an earlier checkout in `root` has it."""

    name: str
    root: Path = PROJECT_ROOT

    @property
    def arm(self) -> str:
        """The name among ARMS."""
        return "ours" if self.name == BEFORE else self.name


def main(argv: list[str]) -> int:
    """Make the clips, time every way in turns, compare frames, write bench_frames.json, print a table, JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/bench_frames", help="folder to write (default: %(default)s)")
    parser.add_argument("--before", metavar="FOLDER", help="a checkout of an earlier version")
    parser.add_argument("--rounds", type=int, default=3, help="times every way is timed (default: %(default)s)")
    args = parser.parse_args(argv)
    versions = checkouts(args.before, measured_by=SCRIPT)
    out = from_root(args.out)
    out.mkdir(parents=True, exist_ok=True)
    ways = [Way(BEFORE, versions[BEFORE])] if BEFORE in versions else []
    ways = [way for way in (*ways, *map(Way, ARMS)) if is_installed(way.name)]
    clips = {gop: make_clip(out / f"gop{gop}.mp4", gop, RATE * SECONDS) for gop in GOPS}
    shortest = make_clip(out / "one_frame.mp4", 1, 1)
    seconds: dict[tuple[Way, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for turn in range(args.rounds):
        for way in ways:
            start_up = timed(way, [shortest], 1, out)["cpu"]
            for gop, clip in clips.items():
                print(f"round {turn + 1}: {way.name}, GOP {gop}", file=sys.stderr)
                taken = seconds[way, gop]
                taken["cpu"].append(timed(way, [clip] * CLIPS_IN_TURN, 1, out)["cpu"])
                taken["wall"].append(timed(way, [clip] * CLIPS_AT_ONCE, cpu_count(), out)["wall"])
                taken["start_up_cpu"].append(start_up)
    results = {
        "machine": {**machine_with(*PACKAGES), "ffmpeg": ffmpeg_version()},
        "clips": {"width": WIDTH, "height": HEIGHT, "rate": RATE, "seconds": SECONDS, "at_once": CLIPS_AT_ONCE},
        "arms": [
            {"arm": way.name, "gop": gop, **summary(taken), "frames": compared(way, clips[gop], out)}
            for (way, gop), taken in seconds.items()
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


def timed(way: Way, clips: list[Path], workers: int, out: Path) -> dict[str, float]:
    """Return the CPU and wall seconds of one process that takes the clips' frames."""
    folder = out / "frames"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, SCRIPT, way.arm, "--out", str(folder), "--workers", str(workers)]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = with_project() if way.root == PROJECT_ROOT else {**os.environ, "PYTHONPATH": str(way.root)}
    subprocess.run([*command, "--clips", *map(str, clips)], cwd=way.root, env=env, check=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def summary(taken: dict[str, list[float]]) -> dict[str, Any]:
    """Return the medians of CPU seconds a clip, start-up apart, and of wall seconds for all clips at once; and all."""
    return {
        "cpu_seconds_a_clip": (median(taken["cpu"]) - median(taken["start_up_cpu"])) / CLIPS_IN_TURN,
        "wall_seconds": median(taken["wall"]),
        "measured": taken,
    }


def compared(way: Way, clip: Path, out: Path) -> dict[str, float]:
    """Return how many frames a way gives, and how far they are from a full decode's, in grey levels on average.

    JPEG alone makes a few levels on noise; another frame of the scene makes more.
    """
    timed(way, [clip], 1, out)
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


def ffmpeg_version() -> str | None:
    """Return what the ffmpeg command says that it is, None where there is none."""
    if not shutil.which("ffmpeg"):
        return None
    said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    return said.split(" ", 3)[2]


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
