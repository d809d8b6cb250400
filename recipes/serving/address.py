"""The address that something is served on."""

import socket

from data_prep.errors import InputError

LOCAL = "127.0.0.1"


def check_port(host: str, port: int) -> None:
    """Raise InputError where nothing could be served: better at once than after the model was loaded."""
    if port == 0:
        raise InputError("--port 0 is no address that people could open; name one from 1 to 65535")
    listen(host, port).close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there. Raises InputError where the port can't be had."""
    try:
        listening = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} of {host} can't be had ({error}); name another with --port") from None
    # Inherited by its connections: without, a response's body waits 40 ms for the caller to acknowledge the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
