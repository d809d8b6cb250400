"""What the scripts that answer let their users say of the card: which layers stay in host memory. Imports no torch."""

import argparse
from functools import partial
from typing import NamedTuple

from recipes.layers.sizes import ALL, checked_count

_FLAGS = {"--layers-on-host": "decoder layers", "--vision-blocks-on-host": "vision blocks"}


class OnHost(NamedTuple):
    """How many decoder layers and vision blocks stay in host memory, digits or ALL; None: as many as must."""

    layers: str | None = None
    vision_blocks: str | None = None


AS_MANY_AS_MUST = OnHost()


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add --layers-on-host and --vision-blocks-on-host to a script's command line."""
    for flag, what in _FLAGS.items():
        parser.add_argument(
            flag,
            type=partial(checked_count, flag),
            metavar="N",
            help=f"{what} that pass through the card from host memory, a number or {ALL}; by default as many as must",
        )


def on_host_of(args: argparse.Namespace) -> OnHost:
    """Return what a command line says."""
    return OnHost(args.layers_on_host, args.vision_blocks_on_host)
