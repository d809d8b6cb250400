"""The service put together and run: the model in its thread, the endpoints behind the gate, Uvicorn in front."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import uvicorn
from PIL import Image
from starlette.types import ASGIApp

from recipes.adapter.folder import Adapter
from recipes.adapter.safety_record import SafetyRecord
from recipes.answering.card_options import OnHost
from recipes.serving.address import LOCAL, listen
from recipes.serving.connections import Connection
from recipes.serving.counts import Counts
from recipes.serving.gate import Gate, Rules
from recipes.serving.how_to_ask import how_to_ask
from recipes.serving.model_thread import ModelThread, Score
from recipes.serving.places import Places
from recipes.serving.service import Service
from recipes.serving.turns import Turns, batch_sizes

FULL_HD = (1920, 1080)  # most cameras' frames, and all others as wide for their height, come to the model in one size
DECODERS = 4  # threads; a card answers fewer frames a second than one of them decodes


class Limits(NamedTuple):
    """How many frames are answered at once, how many seconds they wait for each other, how many may wait."""

    batch_size: int
    max_wait: float
    max_queue: int


def serve(
    adapter: Adapter,
    rules: Rules,
    limits: Limits,
    *,
    host: str,
    port: int,
    prior: float | None,
    compiled: bool,
    on_host: OnHost,
) -> None:
    """Load an adapter and answer frames with it until the process is told to end.

    Raises InputError where it can't be loaded, or the port was taken meanwhile.
    """
    load = partial(_load, adapter, compiled=compiled, on_host=on_host)
    name, address = adapter.folder.name, f"http://{host}:{port}"
    with (
        application(load, adapter.record, name, rules, limits, address=address, prior=prior) as app,
        listen(host, port) as listening,
    ):
        print(f"{address}/", flush=True)
        server_of(app).run(sockets=[listening])


@contextmanager
def application(
    load: Callable[[Turns], Score],
    record: SafetyRecord,
    name: str,
    rules: Rules,
    limits: Limits,
    *,
    address: str,
    prior: float | None = None,
) -> Iterator[ASGIApp]:
    """Give the application of an adapter called `name`; `load`, called in the model's thread, gives what scores frames.

    At the end all that waits is answered, and how many there were is said.
    """
    turns, counts = Turns(limits.batch_size, limits.max_wait), Counts()
    model = ModelThread(turns, counts.batch)
    places = Places(limits.max_queue, lambda: model.seconds_a_frame)
    counts.watch(places.waiting)
    model.start(partial(load, turns))
    try:
        with ThreadPoolExecutor(DECODERS, "decoder") as decoders:
            page = how_to_ask(record, name, rules, address)
            service = Service(record, prior, model, places, counts, decoders, page)
            yield Gate(service.app(), rules, counts)
    finally:
        model.close()
        print(counts.in_words(), file=sys.stderr, flush=True)


def server_of(app: ASGIApp) -> uvicorn.Server:
    """Return what serves an application. Told to end by a signal, it answers what it has accepted first."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        forwarded_allow_ips=LOCAL,  # a proxy on this machine tells whom it asks for
    )
    return uvicorn.Server(config)


def _load(adapter: Adapter, turns: Turns, *, compiled: bool, on_host: OnHost) -> Score:
    """Return what scores frames, and have `turns` make no larger batches than there is room for.

    On a card each size of batch is tried once: what is to be compiled is, and what doesn't fit is known.
    """
    from recipes.answering.adapted_model import load_for_frames
    from recipes.model.device import CardFullError, choose_device

    adapted = load_for_frames(adapter, compiled=compiled, on_host=on_host, frames=turns.most)
    turns.most = adapted.frames
    if choose_device().type == "cpu":
        return adapted.p_unsafe
    for size in batch_sizes(turns.most):
        try:
            adapted.p_unsafe([Image.new("RGB", FULL_HD)] * size)
        except CardFullError:
            if size == 1:
                raise
            turns.most = size // 2
            print(f"the card has no memory for {size} frames at once: {turns.most} are answered", file=sys.stderr)
            break
    return adapted.p_unsafe
