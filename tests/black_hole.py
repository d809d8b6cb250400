"""A server on the loopback interface that takes every call and never answers: what some firewalls make of a Hub."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass
class BlackHole:
    """Where it is, and what came first on each connection, as it came."""

    url: str
    heard: list[bytes] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """Return what makes it the Hub, and the way to every other host, of a process that nothing forbids to ask."""
        proxies = dict.fromkeys(PROXIES, self.url)
        asked = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "0", "HF_ENDPOINT": self.url}
        return {**asked, **proxies, "no_proxy": "", "NO_PROXY": ""}


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def black_hole() -> Iterator[BlackHole]:
    """Serve on a free port of 127.0.0.1 for as long as the context lasts."""
    with contextlib.ExitStack() as connections, socket.create_server(("127.0.0.1", 0)) as server:
        hole = BlackHole(f"http://127.0.0.1:{server.getsockname()[1]}")
        threading.Thread(target=_swallow, args=(server, hole, connections), daemon=True).start()
        yield hole
        server.shutdown(socket.SHUT_RDWR)


def _swallow(server: socket.socket, hole: BlackHole, connections: contextlib.ExitStack) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connections.enter_context(connection)
        threading.Thread(target=_listen, args=(connection, hole), daemon=True).start()


def _listen(connection: socket.socket, hole: BlackHole) -> None:
    with contextlib.suppress(OSError):
        if said := connection.recv(4096):
            hole.heard.append(said)
