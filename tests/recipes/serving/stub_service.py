"""The service on a free port of this machine, with a model that answers by a frame's red and can be made to wait."""

import contextlib
import io
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from recipes.serving.address import LOCAL, listen
from recipes.serving.gate import Rules
from recipes.serving.running import Limits, application, server_of
from recipes.serving.turns import Turns
from tests.recipes.adapter.test_safety_record import RECORD

PATIENCE = 30
RULES = Rules(None, 1_000_000, 20)
LIMITS = Limits(4, 0.0, 16)


@dataclass
class RedModel:
    """P(UNSAFE) is a frame's red over 255. While `held`, batches wait; `batches` says what reds went together."""

    batches: list[list[int]] = field(default_factory=list)
    error: Exception | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, images: Sequence[Image.Image]) -> list[float]:
        reds = [image.getpixel((0, 0))[0] for image in images]  # type: ignore[index]
        self.batches.append(reds)
        self.began.release()
        assert self.go_on.wait(PATIENCE)
        if self.error:
            raise self.error
        return [red / 255 for red in reds]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have batches wait until the end."""
        self.go_on.clear()
        try:
            yield
        finally:
            self.go_on.set()

    def wait_for_a_batch(self) -> None:
        """Return once a further batch has begun."""
        assert self.began.acquire(timeout=PATIENCE)


@dataclass
class Served:
    """A running service, what its model does, and a client that asks it."""

    port: int
    turns: Turns
    model: RedModel
    client: httpx.Client

    def metric(self, name: str) -> float:
        """Return a value of /metrics, 0 for what hasn't been counted."""
        text = self.client.get("/metrics").text
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(values[0]) if values else 0.0

    def wait_until(self, name: str, value: float) -> None:
        """Return once /metrics says so."""
        for _ in range(PATIENCE * 50):
            if self.metric(name) == value:
                return
            threading.Event().wait(0.02)
        raise AssertionError(f"{name} is {self.metric(name)}, not {value}")

    def wait_for_frames(self, count: int) -> None:
        """Return once so many are decoded and wait for the model."""
        for _ in range(PATIENCE * 50):
            if len(self.turns) == count:
                return
            threading.Event().wait(0.02)
        raise AssertionError(f"{len(self.turns)} frames wait, not {count}")

    def ask(self, red: int, **how: Any) -> httpx.Response:
        """Ask about a frame of that red."""
        return self.client.post("/answer", content=frame(red), **how)

    def raw(self) -> socket.socket:
        """Return a connection on which anything can be sent."""
        connection = socket.create_connection((LOCAL, self.port))
        connection.settimeout(PATIENCE)
        return connection


def frame(red: int, *, size: tuple[int, int] = (16, 8), kind: str = "PNG") -> bytes:
    """Return an encoded frame of that red."""
    content = io.BytesIO()
    Image.new("RGB", size, (red, 0, 0)).save(content, kind)
    return content.getvalue()


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Return what comes up to `end`."""
    said = b""
    while not said.endswith(end):
        came = connection.recv(65536)
        assert came, said
        said += came
    return said


def till_closed(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while came := connection.recv(65536):
            said += came
    return said


@contextlib.contextmanager
def served(rules: Rules = RULES, limits: Limits = LIMITS, *, prior: float | None = None) -> Iterator[Served]:
    """Serve for as long as the context lasts."""
    model, waiting = RedModel(), list[Turns]()
    model.go_on.set()

    def load(turns: Turns) -> RedModel:
        waiting.append(turns)
        return model

    with (
        application(load, RECORD, "a <run>", rules, limits, address="http://here", prior=prior) as app,
        listen(LOCAL, 0) as listening,
    ):
        port = listening.getsockname()[1]
        server = server_of(app)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        with httpx.Client(base_url=f"http://{LOCAL}:{port}", timeout=PATIENCE, trust_env=False) as client:
            try:
                yield Served(port, waiting[0], model, client)
            finally:
                model.go_on.set()
                client.close()
                server.should_exit = True
                thread.join(PATIENCE)
                assert not thread.is_alive()
