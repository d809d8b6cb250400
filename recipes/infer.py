"""Answer frames: print exactly SAFE or UNSAFE for each.

    python recipes/infer.py --adapter outputs/qwen2vl_7b_8gb --image frame.jpg
    ls data/frames/test/unsafe/*/0000.jpg | python recipes/infer.py --adapter outputs/qwen2vl_7b_8gb --stream

--stream reads one path a line from stdin and answers each as it comes, until the input ends: a frame grabber can be
piped into it. A frame that can't be read gets a line on stderr, the others their answers, and the exit status is 2.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data_prep.console import (
    results_alone_on_stdout,
    run_script,
    silence_known_messages,
    stay_offline,
    stream_alone_on_stdin,
)
from data_prep.errors import InputError, one_line
from data_prep.files import PROJECT_ROOT, from_root
from data_prep.media.images import check_image, read_image
from recipes.adapter.folder import find_adapter
from recipes.metrics.prior_shift import check_prior

if TYPE_CHECKING:
    from recipes.answering.adapted_model import AdaptedModel


def main(argv: list[str]) -> int:
    """Print one answer a line, in the order of the frames."""
    args = parse_arguments(argv)
    silence_known_messages()
    for path in args.image or []:
        check_image(file_of(path), printable(str(file_of(path))))
    adapter = find_adapter(from_root(args.adapter))
    stay_offline()
    with results_alone_on_stdout() as results, stream_alone_on_stdin() as lines:
        from recipes.answering.adapted_model import load_to_answer

        began = time.monotonic()
        adapted = load_to_answer(adapter, compiled=args.compile)
        loaded = time.monotonic()
        answered, failed = answer_all(args.image or paths_from(lines), adapted, results, args)
    if sys.stderr.isatty():
        seconds = time.monotonic() - loaded
        print(
            f"{answered} frames answered in {seconds:.1f} s, {failed} unreadable; loading took {loaded - began:.1f} s",
            file=sys.stderr,
        )
    if args.stream and not answered + failed:
        raise InputError("--stream: no path came on stdin; write one a line")
    return 2 if failed else 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder of a finished run, for example outputs/demo")
    frames = parser.add_mutually_exclusive_group(required=True)
    frames.add_argument("--image", nargs="+", metavar="FILE", help="one or more JPEG or PNG files")
    frames.add_argument("--stream", action="store_true", help="read paths from stdin, one a line")
    parser.add_argument(
        "--json", action="store_true", help="print an object a line: image, label, p_unsafe, threshold, latency_ms"
    )
    parser.add_argument(
        "--prior",
        type=float,
        metavar="SHARE",
        help="correct P(UNSAFE) for this share of UNSAFE frames; a threshold that a rule chose moves with it",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the model's layers first: a fifth faster on a GPU, worth its ten seconds from 2,000 frames on",
    )
    args = parser.parse_args(argv)
    if args.prior is not None:
        check_prior(args.prior)
    return args


def paths_from(lines: Iterable[bytes]) -> Iterator[str]:
    """Return the paths that come in, one a line, as they come; empty lines are passed over.

    A file system takes any bytes for a name: those that aren't UTF-8 become what os.fsdecode makes of them.
    """
    return (os.fsdecode(line.rstrip(b"\r\n")) for line in lines if line.strip())


def file_of(path: str) -> Path:
    """Return where a frame lies. Names are taken as they are: whoever expands a `~` has done so already."""
    return PROJECT_ROOT / path


def printable(path: str) -> str:
    """Return a path with what isn't UTF-8 in it escaped, so that it can be printed and put into JSON."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def answer_all(
    paths: Iterable[str], adapted: "AdaptedModel", results: IO[str], args: argparse.Namespace
) -> tuple[int, int]:
    """Answer each frame into `results` at once; return how many were answered, and how many couldn't be read."""
    answered = failed = 0
    for path in paths:
        try:
            found = answer(path, adapted, args.prior)
        except InputError as error:
            failed += 1
            if args.json:
                said = {"image": printable(path), "error": one_line(error)}
                print(json.dumps(said, ensure_ascii=False), file=results, flush=True)
            else:
                print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
            continue
        answered += 1
        line = json.dumps(found, ensure_ascii=False, allow_nan=False) if args.json else found["label"]
        print(line, file=results, flush=True)
    return answered, failed


def answer(path: str, adapted: "AdaptedModel", prior: float | None) -> dict[str, Any]:
    """Return what there is to say of one frame; latency is from the file to the label, in milliseconds."""
    record = adapted.record
    began = time.perf_counter()
    (scored,) = adapted.p_unsafe([read_image(file_of(path), printable(path))])
    p_unsafe = float(record.at_prior(scored, prior))
    label = record.label_of(p_unsafe, prior)
    latency = 1000 * (time.perf_counter() - began)
    return {
        "image": printable(path),
        "label": label,
        "p_unsafe": p_unsafe,
        "threshold": record.threshold_at(prior),
        "latency_ms": round(latency, 1),
    }


if __name__ == "__main__":
    run_script(main, reads_stdin=True)
