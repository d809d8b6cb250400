"""Answer frames: print exactly SAFE or UNSAFE for each.

    python recipes/infer.py --adapter outputs/qwen2vl_7b --image frame.jpg
    ls data/frames/test/unsafe/*/0000.jpg | python recipes/infer.py --adapter outputs/qwen2vl_7b --stream
    python recipes/infer.py --adapter exports/plant --server http://127.0.0.1:8000/v1 --image frame.jpg

--stream reads one path a line from stdin and answers each as it comes, until the input ends: a frame grabber can be
piped into it. A frame that can't be read gets a line on stderr, the others their answers, and the exit status is 2.
With --server an engine that serves an export answers, vLLM's or llama.cpp's say; of --adapter's folder only the prompt,
the limits and the threshold are used then.
"""

import argparse
import sys
import time
from collections.abc import Callable

from data_prep.console import (
    results_alone_on_stdout,
    run_script,
    silence_known_messages,
    stay_offline,
    stream_alone_on_stdin,
)
from data_prep.errors import InputError
from data_prep.files import from_root
from data_prep.labels import UNSAFE
from data_prep.media.images import check_image
from recipes.adapter.folder import find_adapter
from recipes.answering.card_options import add_card_options, on_host_of
from recipes.answering.server_options import add_server_options, check_server_options, served
from recipes.answering.stream import Answering, answer_all, file_of, paths_from, printable
from recipes.metrics.prior_shift import check_prior
from recipes.ranks.place import check_one_process


def main(argv: list[str]) -> int:
    """Print one answer a line, in the order of the frames."""
    check_one_process("infer.py")
    args = parse_arguments(argv)
    silence_known_messages()
    for path in args.image or []:
        check_image(file_of(path), printable(str(file_of(path))))
    load = (served if args.server else loaded_here)(args)
    stay_offline()
    with results_alone_on_stdout() as results, stream_alone_on_stdin() as lines:
        began = time.monotonic()
        adapted = load()
        loaded = time.monotonic()
        paths = args.image or paths_from(lines)
        answered, failed = answer_all(paths, adapted, results, prior=args.prior, as_json=args.json)
    if sys.stderr.isatty():
        seconds = time.monotonic() - loaded
        print(
            f"{answered} frames answered in {seconds:.1f} s, {failed} unreadable; loading took {loaded - began:.1f} s",
            file=sys.stderr,
        )
    if args.stream and not answered + failed:
        raise InputError("--stream: no path came on stdin; write one a line")
    return 2 if failed else 0


def loaded_here(args: argparse.Namespace) -> Callable[[], Answering]:
    """Find the adapter and its base; return what loads them."""
    adapter = find_adapter(from_root(args.adapter))

    def load() -> Answering:
        from recipes.answering.adapted_model import load_for_frames

        return load_for_frames(adapter, compiled=args.compile, on_host=on_host_of(args))

    return load


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--adapter", required=True, help="folder of a finished run or an export, for example outputs/demo"
    )
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
        help=f"correct P({UNSAFE}) for this share of {UNSAFE} frames; a threshold that a rule chose moves with it",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the model's layers first: up to a fifth faster on a GPU, worth its ten seconds for 2,000 frames",
    )
    add_card_options(parser)
    add_server_options(parser)
    args = parser.parse_args(argv)
    if args.prior is not None:
        check_prior(args.prior)
    check_server_options(args)
    return args


if __name__ == "__main__":
    run_script(main, reads_stdin=True)
