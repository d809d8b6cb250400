"""Clients that ask a service over and over, and a sham service that costs nothing: the load of bench_serve.py."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from recipes.serving.address import LOCAL

CANNED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


@dataclass
class Load:
    """What clients saw: seconds of each answer, and how far each P(UNSAFE) lay from what it had to be."""

    seconds: list[float] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)
    other_labels: int = 0

    def take(self, answer: dict[str, Any], expected: dict[str, Any]) -> None:
        """Compare an answer with infer.py's of the same frame."""
        self.apart.append(abs(answer["p_unsafe"] - expected["p_unsafe"]))
        self.other_labels += answer["answer"] != expected["label"]


def ask_for(
    seconds: float, clients: int, port: int, frames: Sequence[bytes], expected: Sequence[dict[str, Any]] | None
) -> tuple[Load, float]:
    """Have clients ask for so long, each its next frame once it has an answer; return what they saw, and the rate.

    The rate is in frames a second, from the first request to the last answer. Without `expected` answers aren't read.
    """
    loads = [Load() for _ in range(clients)]
    begin, began = threading.Barrier(clients + 1), [0.0]

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(LOCAL, port, timeout=600)
        begin.wait()
        turn = number
        while time.perf_counter() - began[0] < seconds:
            place, asked = turn % len(frames), time.perf_counter()
            connection.request("POST", f"/answer?camera={number}", frames[place])
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise RuntimeError(f"a frame was answered with {response.status}: {content.decode()}")
            loads[number].seconds.append(time.perf_counter() - asked)
            if expected is not None:
                loads[number].take(json.loads(content), expected[place])
            turn += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    began[0] = time.perf_counter()
    begin.wait()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - began[0]
    load = Load(
        [value for each in loads for value in each.seconds],
        [value for each in loads for value in each.apart],
        sum(each.other_labels for each in loads),
    )
    return load, len(load.seconds) / whole


@contextmanager
def sham_service(delay: Callable[[], float]) -> Iterator[int]:
    """Give the port of a server that reads each request and answers nothing in it, `delay()` seconds later."""
    with socket.create_server((LOCAL, 0)) as server:
        threading.Thread(target=_accept, args=(server, delay), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, delay: Callable[[], float]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, delay), daemon=True).start()


def _answer(connection: socket.socket, delay: Callable[[], float]) -> None:
    with connection, connection.makefile("rb") as came:
        while came.readline():
            length = 0
            while (line := came.readline().lower()) not in (b"\r\n", b""):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            came.read(length)
            time.sleep(delay())
            connection.sendall(CANNED)
