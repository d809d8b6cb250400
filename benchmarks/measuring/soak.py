"""Requests of every kind, good and bad, and what has to come of each."""

import io
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from recipes.serving.address import LOCAL

PATIENCE = 600
TOLERANCE = 1e-4
# Of a thousand requests so many are of each kind.
KINDS = {
    "good": 520,
    "several": 30,
    "words": 120,
    "torn": 100,
    "bomb": 20,
    "no token": 60,
    "wrong token": 40,
    "nowhere": 20,
    "declared too large": 15,
    "endless": 5,
    "header of a megabyte": 10,
    "hangs up": 35,
    "half a body": 20,
    "slow": 3,
    "killed": 2,
}
STATUS = {
    "good": 200,
    "several": 200,
    "words": 422,
    "torn": 422,
    "bomb": 422,
    "no token": 401,
    "wrong token": 401,
    "nowhere": 404,
    "declared too large": 413,
    "endless": 413,
    "header of a megabyte": 400,
    "slow": 408,
}
# A client that sends half of what it declares, and is killed by then.
HALF = """\
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(sys.stdin.buffer.read())
print("sent", flush=True)
time.sleep(600)
"""


@dataclass
class Soak:
    """Threads that send requests to one service, and what came of them."""

    port: int
    token: str
    frames: Sequence[bytes]
    expected: Sequence[dict[str, Any]]
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _bomb: bytes = field(default_factory=lambda: bomb())

    def run(self, kinds: Sequence[str], clients: int, every: Callable[[int], None]) -> None:
        """Send a request of each kind, in order, by so many clients; `every` is told how many have begun."""
        waiting, sent = list(enumerate(kinds))[::-1], [0]

        def client() -> None:
            while not self.ending.is_set():
                with self._lock:
                    if not waiting:
                        return
                    number, kind = waiting.pop()
                    sent[0] += 1
                    every(sent[0])
                self.send(number, kind)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def send(self, number: int, kind: str) -> None:
        """Send one request, and note what came of it."""
        try:
            outcome = self._outcome(number, kind)
        except ConnectionError as error:
            # Before the service is told to end it may refuse nobody like this.
            outcome = "not accepted" if self.ending.is_set() else f"WRONG: {type(error).__name__}"
        with self._lock:
            self.outcomes[f"{kind}: {outcome}"] += 1
            if outcome.startswith("WRONG"):
                self.wrong.append(f"{kind}: {outcome}")

    def _outcome(self, number: int, kind: str) -> str:
        place = number % len(self.frames)
        if kind == "killed":
            return self._killed(self.frames[place])
        with socket.create_connection((LOCAL, self.port), timeout=PATIENCE) as connection:
            if kind in ("hangs up", "half a body"):
                whole = self._request("/answer", self.frames[place])
                connection.sendall(whole if kind == "hangs up" else whole[:-100])
                return "gone"
            self._send(connection, kind, place)
            status, body = response_on(connection)
        if status is None and kind == "header of a megabyte":
            return "400"  # closed while we sent: the line can be lost on its way
        if status is None:
            return "not accepted" if self.ending.is_set() else "WRONG: no response"
        if status != STATUS[kind]:
            return f"WRONG: {status} {body[:100]!r}"
        if kind == "good" and not self._is_right(json.loads(body), place):
            return f"WRONG: {body[:100]!r}"
        if kind == "several" and not self._are_right(json.loads(body), place):
            return f"WRONG: {body[:300]!r}"
        return str(status)

    def _send(self, connection: socket.socket, kind: str, place: int) -> None:
        frame = self.frames[place]
        if kind == "several":
            parts = [frame, b"words", self.frames[(place + 1) % len(self.frames)]]
            body = b"".join(
                b'--edge\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n%s\r\n' % part
                for part in parts
            )
            what = self._request(
                "/answers", body + b"--edge--\r\n", b"Content-Type: multipart/form-data; boundary=edge\r\n"
            )
        elif kind == "slow":
            connection.sendall(self._request("/answer", frame)[: -len(frame) // 2])
            return
        elif kind == "endless":
            connection.sendall(self._head("/answer") + b"Transfer-Encoding: chunked\r\n\r\n")
            send_until_refused(connection)
            return
        else:
            what = self._plain(kind, frame)
        try:
            connection.sendall(what)
        except ConnectionError:
            if kind != "header of a megabyte":
                raise

    def _plain(self, kind: str, frame: bytes) -> bytes:
        bodies = {"words": b"words", "torn": frame[: len(frame) // 2], "bomb": self._bomb}
        if kind == "no token":
            return b"POST /answer HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%s" % (len(frame), frame)
        if kind == "wrong token":
            return self._request("/answer", frame).replace(self.token.encode(), b"another")
        if kind == "nowhere":
            return self._request("/health/../answer", b"")
        if kind == "declared too large":
            return self._head("/answer") + b"Content-Length: 1000000000\r\n\r\n"
        if kind == "header of a megabyte":
            return b"GET /health HTTP/1.1\r\nHost: here\r\nA: " + b"a" * 1_000_000
        return self._request("/answer", bodies.get(kind, frame))

    def _head(self, path: str) -> bytes:
        return f"POST {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {self.token}\r\n".encode()

    def _request(self, path: str, body: bytes, more: bytes = b"") -> bytes:
        return self._head(path) + more + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def _killed(self, frame: bytes) -> str:
        """Have a process send half a body, and kill it."""
        process = subprocess.Popen(
            [sys.executable, "-c", HALF, LOCAL, str(self.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin and process.stdout
        process.stdin.write(self._request("/answer", frame)[:-100])
        process.stdin.close()
        process.stdout.readline()
        process.kill()
        process.wait()
        return "gone"

    def _is_right(self, found: dict[str, Any], place: int) -> bool:
        expected = self.expected[place]
        return found["answer"] == expected["label"] and abs(found["p_unsafe"] - expected["p_unsafe"]) < TOLERANCE

    def _are_right(self, found: list[dict[str, Any]], place: int) -> bool:
        first, bad, last = found
        following = (place + 1) % len(self.frames)
        return "error" in bad and self._is_right(first, place) and self._is_right(last, following)


def mixed_kinds(count: int) -> list[str]:
    """Return the kinds of so many requests, mixed, in the shares of KINDS."""
    kinds = [kind for kind, share in KINDS.items() for _ in range(max(round(count * share / sum(KINDS.values())), 1))]
    random.Random(0).shuffle(kinds)
    return kinds


def bomb() -> bytes:
    """Return a small PNG that holds 100 megapixels."""
    content = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(content, "PNG")
    return content.getvalue()


def send_until_refused(connection: socket.socket) -> None:
    """Send a chunked body of a gigabyte, or as much of it as is taken."""
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    connection.settimeout(1.0)
    try:
        for _ in range(16_384):
            connection.sendall(chunk)
    except (ConnectionError, TimeoutError):
        pass
    connection.settimeout(PATIENCE)


def response_on(connection: socket.socket) -> tuple[int | None, bytes]:
    """Return the status and the body of the response on a connection, None where it ended without one."""
    said = b""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        head, found, body = said.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if found and lengths and len(body) >= int(lengths[0].partition(b":")[2]):
            break
        try:
            came = connection.recv(65536)
        except ConnectionError:
            came = b""
        if not came:
            break
        said += came
    head, found, body = said.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body) if found else (None, b"")
