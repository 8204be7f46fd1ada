"""What a request must be before MLServer reads it, and what its errors become, in our own server process.

MLServer by itself takes bodies of any size, unpacks gzip without a limit, answers 422 or 500 where a body is no
request, 404 for a model that was unloaded, and calls a server without any model ready. Here what a client got wrong is
a 4xx of one line, and what the server lost is a 503. What is checked inside a request is in `runtime`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import JSONResponse
from mlserver.errors import MLServerError, ModelNotFound, ModelNotReady
from mlserver.rest import app as rest_app
from mlserver.server import MLServer
from mlserver.types import InferenceRequest, InferenceResponse
from starlette.exceptions import HTTPException

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

CLIENTS_FAULT = (b"x-envoy-upstream-canary", b"true")
"""Envoy keeps the counters and times of answers with this header a second time, under `canary`."""
LONGEST_ERROR = 300
"""Characters of a message, which may quote what a client sent."""
LONGEST_ID, MOST_DIMENSIONS = 256, 8
"""Characters of a request's id, and sizes in the shape of a tensor."""
PEER: ContextVar[str | None] = ContextVar("peer", default=None)
"""The address of the other end, while a request is answered."""
_BODIES = 2
"""Bodies of the largest size that are held at once; further ones wait in the sockets."""
_BINARY = b"inference-header-content-length"


class NotAnsweredByGuardError(MLServerError):
    """The guard gives no answer."""

    def __init__(self, why: str, status: int, retry_after: int | None) -> None:
        super().__init__(why, status)
        self.retry_after = retry_after


@dataclass
class Budget:
    """Bytes of bodies that may be in memory together."""

    most: int
    held: int = 0
    freed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, count: int) -> None:
        """Returns when `count` bytes (at most `most`) are free."""
        if self.held + count > self.most:
            async with self.freed:
                await self.freed.wait_for(lambda: self.held + count <= self.most)
        self.held += count

    async def give(self, count: int) -> None:
        """Frees them again."""
        self.held -= count
        async with self.freed:
            self.freed.notify_all()


class Intake:
    """ASGI middleware: refuses by headers and size alone, before a body is read."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app, self._most = app, max_body_bytes
        self._budget = Budget(_BODIES * max_body_bytes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        PEER.set((scope.get("client") or (None,))[0])
        headers = dict(scope["headers"])
        refused = self._refused(headers)
        if refused is not None:
            await _reply(send, *refused)
            return
        length = int(headers.get(b"content-length", self._most))
        await self._budget.take(length)
        try:
            await self._app(scope, self._counted(receive), _marking(send))
        finally:
            await self._budget.give(length)

    def _refused(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > self._most:
            return 413, self._too_large(_shown(length))
        if headers.get(b"content-encoding", b"identity") != b"identity":
            return 415, f"expected a body without content-encoding, found {_shown(headers[b'content-encoding'])}"
        if _BINARY in headers:
            return 400, f"expected tensors as JSON, found {_BINARY.decode()}: binary tensor data is not supported"
        kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            return 415, f"expected content-type application/json, found {_shown(kind)}"
        return None

    def _counted(self, receive: Receive) -> Receive:
        """Bodies in chunks have no length that could be looked at first."""
        left = self._most

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, self._too_large("more"))
            return message

        return counted

    def _too_large(self, found: str) -> str:
        return f"expected a body of at most {self._most} bytes, found {found}"


def guard(server: MLServer, name: str, version: str, max_body_bytes: int) -> None:
    """Puts all of this in front of a server that serves one model and was not started yet."""
    app = server._rest_server._app

    async def lost(request: Request, error: Exception) -> JSONResponse:
        """A 404 for the very model that this process serves is no mistake of the client's."""
        asked = request.path_params
        served = asked.get("model_name") == name and asked.get("model_version") in (None, version)
        return _error(503, f"model {name} is not loaded") if served else _error(404, str(error))

    for kind in (ModelNotFound, ModelNotReady):
        app.add_exception_handler(kind, lost)
    app.add_exception_handler(RequestValidationError, _no_request)
    app.add_exception_handler(NotAnsweredByGuardError, _not_answered)
    app.add_exception_handler(HTTPException, _as_error)
    app.router.routes[:] = [route for route in app.routes if not _is_refused(getattr(route, "path", ""))]
    app.add_middleware(Intake, max_body_bytes=max_body_bytes)
    # MLServer names the class in this module, and makes an object of it for every request.
    rest_app.Request = StrictRequest
    _require_model(server)
    _return_any_id(server)


class StrictRequest(rest_app.Request):
    """A request whose shapes hold whole numbers; pydantic would read `1.0`, `"1"` and `true` as 1."""

    async def json(self) -> Any:
        """The body, after its shapes were checked."""
        found = await super().json()
        for shape in _shapes(found):
            if not all(type(size) is int and size >= 0 for size in shape):
                raise HTTPException(400, f"shape: expected whole numbers from 0 on, found {plain(str(shape))}")
        return found


def _shapes(body: object) -> Iterator[list[object]]:
    """The shapes of inputs, where a request is one as far as that."""
    inputs = body.get("inputs") if isinstance(body, dict) else None
    for tensor in inputs if isinstance(inputs, list) else ():
        shape = tensor.get("shape") if isinstance(tensor, dict) else None
        if isinstance(shape, list):
            yield shape


def _is_refused(path: str) -> bool:
    """Whether it loads or unloads models, of which one is served here, or streams, where an error has no status."""
    return path.startswith("/v2/repository") or path.endswith("_stream")


def _require_model(server: MLServer) -> None:
    """Makes a server without a loaded model not ready; MLServer calls it ready, and answers 400 for the model."""
    plane, models = server._data_plane, server._model_registry.get_models
    model_ready = plane.model_ready

    async def ready() -> bool:
        found = [model.ready for model in await models()]
        if not found or not all(found):
            raise MLServerError("expected a model that is loaded, found none", 503)
        return True

    async def is_ready(name: str, version: str | None = None) -> bool:
        if not await model_ready(name, version):
            raise ModelNotReady(name, version)
        return True

    plane.ready, plane.model_ready = ready, is_ready


def _return_any_id(server: MLServer) -> None:
    """Lets an id that no header can hold come back in the answer, as the protocol promises.

    MLServer also sends ids in a header, where one that it made itself takes the place of those.
    """
    plane = server._data_plane
    answer = plane.infer

    async def infer(payload: InferenceRequest, name: str, version: str | None = None) -> InferenceResponse:
        given = payload.id
        if given is None or given.isascii() or not given.isprintable() or len(given) > LONGEST_ID:
            return await answer(payload, name, version)
        payload.id = None
        response = await answer(payload, name, version)
        response.id = given
        return response

    plane.infer = infer


async def _not_answered(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, NotAnsweredByGuardError)
    response = _error(error.status_code, str(error))
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    return response


async def _no_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    why = first.get("ctx", {}).get("error", first["msg"])
    return _error(400, f"expected a request of the Open Inference Protocol, found at {place}: {why}")


async def _as_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail))


def _error(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": plain(why)}, status)


def plain(text: str) -> str:
    """One line of printable ASCII, cut where it is too long to be read."""
    escaped = text.encode("ascii", "backslashreplace").decode()
    line = "".join(sign if sign.isprintable() else " " for sign in escaped)
    return line if len(line) <= LONGEST_ERROR else f"{line[:LONGEST_ERROR]}..."


def _marking(send: Send) -> Send:
    """Marks what a client got wrong, so that a router keeps the time of such answers apart."""

    async def marking(message: Message) -> None:
        if message["type"] == "http.response.start" and 400 <= message["status"] < 500:
            message["headers"] = [*message.get("headers", ()), CLIENTS_FAULT]
        await send(message)

    return marking


def _shown(value: bytes) -> str:
    return plain(value[:80].decode("latin-1"))


async def _reply(send: Send, status: int, why: str) -> None:
    """Answers and ends the connection, because the body was not read."""
    body = json.dumps({"error": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), CLIENTS_FAULT]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
