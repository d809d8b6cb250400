"""Connections that bring no request within some seconds are closed; Uvicorn waits for a request's headers for ever."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
MOST_CONNECTIONS = 512  # below the 1,024 files that most systems let a process open


class Connection(H11Protocol):
    """A connection of Uvicorn's, closed where a request's headers take longer than HEADER_SECONDS."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are MOST_CONNECTIONS."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._close_unless_asked)

    def data_received(self, data: bytes) -> None:
        """Take what came; the time for a further request's headers begins with their first byte."""
        super().data_received(data)
        if self._is_asked():
            self._forget_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._close_unless_asked)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time, too."""
        self._forget_deadline()
        super().connection_lost(exc)

    def _is_asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_unless_asked(self) -> None:
        self._deadline = None
        if not self._is_asked():
            self.transport.close()

    def _forget_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
