"""The address that something is served on."""

import socket

import pytest

from data_prep.errors import InputError
from recipes.serving.address import LOCAL, check_port, listen


def test_connections_send_at_once_what_they_have() -> None:
    """Else the two parts of a response are 40 ms apart, until the caller acknowledges the first."""
    with listen(LOCAL, 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InputError, match="--port"):
        check_port(LOCAL, port)


def test_port_that_is_taken_is_refused() -> None:
    with listen(LOCAL, 0) as listening, pytest.raises(InputError, match="can't be had"):
        check_port(LOCAL, listening.getsockname()[1])
