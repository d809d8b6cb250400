"""What `Video` makes of clips, one after the other: `python benchmarks/damage/video_answers.py`, for watched_video.py.

It reads a line of JSON a clip, `{"path": …, "rates": ["1"]}`, and answers each with one: for every rate the numbers of
the samples with a hash of their pixels, what was said of damage (`reason`), why nothing could be had (`refused`), or
the `traceback` of any other exception. It imports nothing of benchmarks/, so that PYTHONPATH decides which version of
the project answers.
"""

import argparse
import hashlib
import json
import os
import resource
import sys
import traceback
from fractions import Fraction
from pathlib import Path
from typing import Any

try:
    from data_prep.media.video import Video
except ImportError:  # as it was before modules had folders
    from data_prep.video import Video  # type: ignore[no-redef]

GIB = 2**30


def main(argv: list[str]) -> int:
    """Answer until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory-gib", type=float, default=3, help="address space it may take (default: %(default)s)")
    args = parser.parse_args(argv)
    most = int(args.memory_gib * GIB)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(answer(Path(asked["path"]), asked["rates"])), file=answers, flush=True)
    return 0


def answer(path: Path, rates: list[str]) -> dict[str, Any]:
    """Return what became of a clip at each rate."""
    found: dict[str, Any] = {"samples": {}, "reason": None, "refused": None, "traceback": None}
    try:
        for rate in rates:
            samples = found["samples"][rate] = []
            with Video(path) as clip:
                for number, image in clip.samples(Fraction(rate)):
                    pixels = hashlib.blake2b(image.convert("RGB").tobytes(), digest_size=8)
                    samples.append([number, f"{image.width}x{image.height} {pixels.hexdigest()}"])
                found["reason"] = found["reason"] or clip.reason
    except Exception as error:
        if type(error).__name__ == "VideoError":  # its module is another one in earlier versions
            found["refused"] = str(error)
        else:
            found["traceback"] = traceback.format_exc()
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
