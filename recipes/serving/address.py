"""The address that something is served on."""

import socket

from data_prep.errors import InputError

LOCAL = "127.0.0.1"


def check_port(host: str, port: int) -> None:
    """Raise InputError where the page couldn't be served: better at once than after the model was loaded."""
    if port == 0:
        raise InputError("--port 0 is no address that people could open; name one from 1 to 65535")
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} of {host} can't be had ({error}); name another with --port") from None
