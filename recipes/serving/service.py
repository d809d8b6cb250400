"""The service's endpoints: frames come in, answers go out. Needs FastAPI."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from data_prep.errors import InputError, one_line
from data_prep.media.images import read_image
from recipes.adapter.safety_record import SafetyRecord
from recipes.serving.counts import Counts
from recipes.serving.forms import CAMERA, Parts, camera_of, is_form, read_form
from recipes.serving.model_thread import ModelThread
from recipes.serving.places import Place, Places
from recipes.serving.refusals import Refused, as_response
from recipes.serving.turns import Frame

Answer = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """What the endpoints work with. `decoders` are the threads in which frames are decoded; none runs the model."""

    record: SafetyRecord
    prior: float | None
    model: ModelThread
    places: Places
    counts: Counts
    decoders: ThreadPoolExecutor
    page: str

    def app(self) -> FastAPI:
        """Return the application. No page of FastAPI's own: they load scripts from elsewhere."""
        app = FastAPI(openapi_url=None, redirect_slashes=False)
        app.add_exception_handler(Refused, as_response)
        app.add_exception_handler(HTTPException, _as_line)
        app.add_exception_handler(ClientDisconnect, _nobody_is_there)
        gets: dict[str, Callable[[], Any]] = {"/": self.how_to_ask, "/health": self.health, "/metrics": self.metrics}
        for path, get in gets.items():
            app.add_api_route(path, get, methods=["GET"], response_model=None)
        app.add_api_route("/answer", self.answer, methods=["POST"], response_model=None)
        app.add_api_route("/answers", self.answers, methods=["POST"], response_model=None)
        return app

    async def how_to_ask(self) -> Response:
        """Return the page on how to ask."""
        return HTMLResponse(self.page)

    async def health(self) -> Response:
        """Say whether the model answers: 503 after a batch that ended in an error no frame explains."""
        return JSONResponse({"status": "failing"}, 503) if self.model.failing else JSONResponse({"status": "ok"})

    async def metrics(self) -> Response:
        """Return the counts."""
        return PlainTextResponse(self.counts.as_text(), media_type=CONTENT_TYPE_LATEST)

    async def answer(self, request: Request) -> Response:
        """Answer one frame."""
        with self.places.taken(_address(request)) as place:
            parts = await self._parts(request)
            if len(parts.frames) != 1:
                raise Refused(422, f"{len(parts.frames)} frames in the form; /answer takes one, /answers several")
            ((answer, refused),) = await _unless_gone(request, self._answered(parts, ["frame"], place))
        if refused:
            raise refused
        return JSONResponse(answer)

    async def answers(self, request: Request) -> Response:
        """Answer the frames of a form, in their order, with what is wrong in the place of a bad one."""
        if not is_form(request.headers.get("content-type", "")):
            raise Refused(415, "/answers takes multipart/form-data, a part a frame")
        with self.places.taken(_address(request)) as place:
            parts = await self._parts(request)
            if not parts.frames:
                raise Refused(422, "no frame in the form")
            place.add(len(parts.frames) - 1)
            names = [f"frame {number}" for number in range(1, len(parts.frames) + 1)]
            found = await _unless_gone(request, self._answered(parts, names, place))
        for _, refused in found:
            if refused:
                self.counts.refused(refused.status)
        return JSONResponse([{**answer, "error": refused.line} if refused else answer for answer, refused in found])

    async def _parts(self, request: Request) -> Parts:
        """Return what a request holds, once it is there whole."""
        camera = camera_of(request.query_params.get(CAMERA))
        body, content_type = await request.body(), request.headers.get("content-type", "")
        if not is_form(content_type):
            return Parts([body], camera)
        parts: Parts = await self._in_decoder(read_form, content_type, body, self.places.most)
        parts.camera = parts.camera or camera
        return parts

    async def _in_decoder(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *arguments)

    async def _answered(self, parts: Parts, names: list[str], place: Place) -> list[tuple[Answer, Refused | None]]:
        """Return for each frame its answer, or why it has none."""
        came, caller = time.monotonic(), (place.caller, parts.camera)
        given = {} if parts.camera is None else {CAMERA: parts.camera}

        async def one(content: bytes, name: str) -> tuple[Answer, Refused | None]:
            try:
                image = await self._in_decoder(read_image, content, name)
                frame = Frame(image, caller, came)
                place.put(frame)
                return given | await self._answer(frame), None
            except Refused as refused:
                return given, refused
            except InputError as error:
                return given, Refused(422, one_line(error))

        return await asyncio.gather(*map(one, parts.frames, names))

    async def _answer(self, frame: Frame) -> Answer:
        """Return a frame's answer, as infer.py gives it. Raises Refused where the model has none."""
        self.model.ask(frame)
        try:
            scored = await asyncio.wrap_future(frame.p_unsafe)
        except InputError as error:
            raise Refused(500, one_line(error)) from None
        except Exception:
            raise Refused(500, "the model failed; the service's log says how") from None
        p_unsafe = float(self.record.at_prior(scored, self.prior))
        label = self.record.label_of(p_unsafe, self.prior)
        seconds = time.monotonic() - frame.came
        self.counts.answered(label, seconds)
        return {
            "answer": label,
            "p_unsafe": p_unsafe,
            "threshold": self.record.threshold_at(self.prior),
            "latency_ms": round(1000 * seconds, 1),
        }


def _address(request: Request) -> Hashable:
    return request.client.host if request.client else None


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Return what the work gives; drop it, and raise ClientDisconnect, where the caller hangs up before."""
    working, hanging_up = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        hanging_up.cancel()


def _as_line(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    line = {404: "there is nothing here; GET / says how to ask", 405: "not this way; GET / says how to ask"}
    return JSONResponse({"error": line.get(error.status_code, error.detail)}, error.status_code, error.headers)


def _nobody_is_there(request: Request, error: Exception) -> Response:
    return Response(status_code=400)
