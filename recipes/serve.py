"""A service that answers frames over HTTP: a JPEG or PNG comes in, SAFE or UNSAFE goes out.

    python recipes/serve.py --adapter outputs/demo
    curl --data-binary @frame.jpg http://127.0.0.1:8000/answer

It needs the packages of requirements-serve.txt. Requests that wait are answered together. Nothing of them is kept; what
is counted stands at /metrics. Served beyond this machine, it asks for the token of --token-file.
"""

import argparse
import importlib.util
import os
import signal
import sys

from data_prep.console import run_script, silence_known_messages, stay_offline
from data_prep.errors import InputError, check_at_least
from data_prep.files import from_root, to_root
from recipes.adapter.folder import find_adapter
from recipes.answering.card_options import add_card_options, on_host_of
from recipes.metrics.prior_shift import check_prior
from recipes.ranks.place import check_one_process
from recipes.serving.access import token_for
from recipes.serving.address import LOCAL, check_port

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def main(argv: list[str]) -> int:
    """Serve until the process is told to end; what was accepted by then is answered first."""
    check_one_process("serve.py")
    args = parse_arguments(argv)
    silence_known_messages()
    token = token_for(args.host, from_root(args.token_file) if args.token_file else None)
    adapter = find_adapter(from_root(args.adapter))
    stay_offline()
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f"{missing[0]} is missing; run pip install -r requirements-serve.txt -c constraints.txt")
    check_port(args.host, args.port)
    print(f"loading {to_root(adapter.folder)}; Ctrl-C ends the service", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # while loading, and once Uvicorn has ended
    # Threads of a maths library that wait for each other would spin, on cores that requests and other programs want.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from recipes.serving.gate import Rules
    from recipes.serving.running import Limits, serve

    serve(
        adapter,
        Rules(token, args.max_upload_mb * 1_000_000, args.max_upload_seconds),
        Limits(args.batch_size, args.max_wait_ms / 1000, args.max_queue),
        host=args.host,
        port=args.port,
        prior=args.prior,
        compiled=args.compile,
        on_host=on_host_of(args),
    )
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder of a finished run, for example outputs/demo")
    parser.add_argument("--host", default=LOCAL, help="address to serve on (default: %(default)s, this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument("--token-file", metavar="FILE", help="a file with the token that callers have to show")
    parser.add_argument(
        "--batch-size", type=int, default=8, help="frames answered at once, if they fit (default: %(default)s)"
    )
    parser.add_argument(
        "--max-wait-ms",
        type=float,
        default=10,
        help="how long a frame waits, where the model is free, for as many as there were (default: %(default)s)",
    )
    parser.add_argument("--max-queue", type=int, default=64, help="frames that may wait (default: %(default)s)")
    parser.add_argument("--max-upload-mb", type=int, default=20, help="largest request taken (default: %(default)s)")
    parser.add_argument(
        "--max-upload-seconds", type=float, default=20, help="longest time it may take to come (default: %(default)s)"
    )
    parser.add_argument("--prior", type=float, metavar="SHARE", help="as in infer.py")
    parser.add_argument("--compile", action="store_true", help="compile the model's layers first; needs a GPU")
    add_card_options(parser)
    args = parser.parse_args(argv)
    check_at_least("--batch-size", args.batch_size, 1)
    check_at_least("--max-queue", args.max_queue, 1)
    check_at_least("--max-upload-mb", args.max_upload_mb, 1)
    check_at_least("--max-upload-seconds", args.max_upload_seconds, 1)
    check_at_least("--max-wait-ms", args.max_wait_ms, 0)
    if args.prior is not None:
        check_prior(args.prior)
    return args


if __name__ == "__main__":
    run_script(main)
