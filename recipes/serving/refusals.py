"""What a request is refused with: a status, and one line that says why. Needs Starlette."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """A request, or one of its frames, that gets no answer."""

    def __init__(self, status: int, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status = status
        self.line = line
        self.headers = dict(headers or {})

    def as_response(self) -> Response:
        """Return what the caller gets."""
        return JSONResponse({"error": self.line}, self.status, self.headers)


def as_response(request: Request, error: Exception) -> Response:
    """Return what the caller gets of a Refused, as Starlette asks for it."""
    assert isinstance(error, Refused)
    return error.as_response()
