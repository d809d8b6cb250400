"""What every request passes first: its name, its token, the limits of its body. An ASGI middleware.

https://asgi.readthedocs.io/en/latest/specs/www.html tells the messages.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recipes.serving.access import shows
from recipes.serving.counts import Counts
from recipes.serving.forms import MOST_CHARACTERS
from recipes.serving.refusals import Refused

OPEN = "/health"
LINGER_SECONDS = 1.0  # in which a refused caller may stop sending: closed at once, it could miss the refusal
_NAME = b"x-request-id"


@dataclass(frozen=True)
class Rules:
    """What is asked of every request: a token, if there is one, and a body so small that comes within these seconds."""

    token: bytes | None
    max_bytes: int
    max_seconds: float


class Gate:
    """Lets requests to `app` that keep the rules, and counts those that end without an answer."""

    def __init__(self, app: ASGIApp, rules: Rules, counts: Counts) -> None:
        self.app = app
        self.rules = rules
        self.counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(scope, receive, send, self.rules, self.counts)
        try:
            visit.check()
        except Refused as refused:
            await refused.as_response()(scope, visit.receive, visit.send)
        else:
            await self.app(scope, visit.receive, visit.send)


class Visit:
    """One request and its response, on their way through the gate."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, rules: Rules, counts: Counts) -> None:
        self._status = 0
        self._gone = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._rules = rules
        self._counts = counts
        self._headers = Headers(scope=scope)
        self._ended = self._headers.get("content-length", "0") == "0" and "transfer-encoding" not in self._headers
        self._bytes = 0
        self._deadline = asyncio.get_running_loop().time() + rules.max_seconds

    def check(self) -> None:
        """Raise Refused for what the headers alone tell."""
        name = self._headers.get("x-request-id", "")
        if len(name) > MOST_CHARACTERS or not (name.isascii() and name.isprintable()):
            raise Refused(400, f"X-Request-Id has to be at most {MOST_CHARACTERS} printable ASCII characters")
        token = self._rules.token
        if token and self._scope["path"] != OPEN and not shows(token, self._headers.get("authorization")):
            raise Refused(401, "a token is needed: Authorization: Bearer <token>", {"WWW-Authenticate": "Bearer"})
        if int(self._headers.get("content-length", "0")) > self._rules.max_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """Return the next part of the body; once that has ended, wait until the caller hangs up.

        Raises Refused where more comes than may, or too late.
        """
        if self._ended:
            message = await self._receive()
        else:
            try:
                async with asyncio.timeout_at(self._deadline):
                    message = await self._receive()
            except TimeoutError:
                seconds = f"{self._rules.max_seconds:g} s"
                raise Refused(408, f"the request wasn't whole after {seconds}; send it faster, or smaller") from None
        if message["type"] == "http.disconnect":
            if not self._status and not self._gone:
                self._gone = True
                self._counts.gone()
            return message
        self._bytes += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._bytes > self._rules.max_bytes:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response. Where the body hasn't been read to its end, the connection ends with it."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._status >= 400 and not self._gone:
                self._counts.refused(self._status)
            await self._send({**message, "headers": [*message["headers"], *self._own_headers()]})
        elif self._ended or message.get("more_body"):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._drain()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        message: dict[str, Any] = {"more_body": True}
        while message.get("more_body"):
            message = dict(await self._receive())

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        names = [(name, value) for name, value in self._scope["headers"] if name == _NAME and self._status != 400]
        return names[:1] if self._ended else [*names[:1], (b"connection", b"close")]

    def _too_large(self) -> Refused:
        return Refused(413, f"more than {self._rules.max_bytes:,} bytes; send a smaller frame, or fewer at once")
