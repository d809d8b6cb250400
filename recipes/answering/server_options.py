"""What infer.py lets its users say of a server that answers in a loaded model's place. Imports no torch."""

import argparse
from collections.abc import Callable
from urllib.parse import urlsplit

from data_prep.console import reach_this_machine_directly
from data_prep.errors import InputError
from data_prep.files import from_root
from recipes.adapter.label_tokens import label_tokens
from recipes.adapter.safety_record import read_record
from recipes.answering.stream import Answering


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add --server and --server-model to a script's command line."""
    parser.add_argument("--server", metavar="URL", help="have this server answer, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--server-model", metavar="NAME", help="which of the server's models, if it has several")


def check_server_options(args: argparse.Namespace) -> None:
    """Raise InputError where they don't go with one another, or with what is loaded here."""
    if args.server_model and not args.server:
        raise InputError("--server-model is for --server")
    if not args.server:
        return
    if args.compile or args.layers_on_host is not None or args.vision_blocks_on_host is not None:
        raise InputError("--server: the server loads the model; leave --compile and what stays in host memory out")
    try:
        scheme = urlsplit(args.server).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https"):
        raise InputError(f"--server {args.server!r} is no http:// or https:// address")


def served(args: argparse.Namespace) -> Callable[[], Answering]:
    """Read how the adapter or export is to be asked; return what reaches the server."""
    folder = from_root(args.adapter)
    record, tokens = read_record(folder), label_tokens(folder)
    reach_this_machine_directly("localhost")

    def reach() -> Answering:
        from recipes.answering.chat_server import reach_server

        return reach_server(args.server, args.server_model, record, tokens)

    return reach
