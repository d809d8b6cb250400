"""A page in the browser to try an adapter: drop a frame or a clip, and each frame gets its answer.

    python recipes/app.py --adapter outputs/demo

It needs the packages of requirements-app.txt. The page is served to this machine alone, works without a network, and
keeps and sends nothing.
"""

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
from pathlib import Path

from data_prep.console import reach_this_machine_directly, run_script, silence_known_messages, stay_offline
from data_prep.errors import InputError, check_at_least
from data_prep.files import from_root, to_root
from recipes.adapter.folder import find_adapter
from recipes.answering.card_options import add_card_options, on_host_of
from recipes.ranks.place import check_one_process
from recipes.serving.address import LOCAL, check_port
from recipes.serving.examples import examples_in


def main(argv: list[str]) -> int:
    """Serve the page until it is interrupted."""
    args = parse_arguments(argv)
    silence_known_messages()
    adapter = find_adapter(from_root(args.adapter))
    stay_offline()
    if importlib.util.find_spec("gradio") is None:
        raise InputError("gradio is missing; run pip install -r requirements-app.txt -c constraints.txt")
    check_port(args.host, args.port)
    reach_this_machine_directly(args.host)
    name = to_root(adapter.folder)
    print(f"loading {name}; Ctrl-C ends the page", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # docker stop; uploads are removed on the way out
    with tempfile.TemporaryDirectory(prefix="safe-unsafe-app-") as uploads:
        os.environ.update(GRADIO_TEMP_DIR=uploads, GRADIO_ANALYTICS_ENABLED="False")
        from recipes.answering.adapted_model import load_for_frames
        from recipes.serving.answer_page import build_page, theme
        from recipes.serving.strip import CSS

        adapted = load_for_frames(adapter, compiled=args.compile, on_host=on_host_of(args))
        examples = examples_in(from_root(args.examples))
        page = build_page(adapter.record, name, lambda image: adapted.p_unsafe([image])[0], examples, Path(uploads))
        _, address, _ = page.launch(
            server_name=args.host,
            server_port=args.port,
            max_file_size=args.max_upload_mb * 1_000_000,
            share=False,
            ssr_mode=False,
            footer_links=[],
            run_history=False,
            prevent_thread_lock=True,
            quiet=True,
            css=CSS,
            theme=theme(),
        )
        print(address, flush=True)
        if args.host != LOCAL:
            print(f"served on {args.host}: whoever reaches this machine there can use the page", file=sys.stderr)
        page.block_thread()
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    check_one_process("app.py")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder of a finished run, for example outputs/demo")
    parser.add_argument("--host", default=LOCAL, help="address to serve on (default: %(default)s, this machine alone)")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.add_argument("--max-upload-mb", type=int, default=200, help="largest file taken (default: %(default)s)")
    parser.add_argument(
        "--examples", default="data/demo", help="a data folder to take examples from (default: %(default)s, if there)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the model's layers first; needs a GPU")
    add_card_options(parser)
    args = parser.parse_args(argv)
    check_at_least("--max-upload-mb", args.max_upload_mb, 1)
    return args


if __name__ == "__main__":
    run_script(main)
