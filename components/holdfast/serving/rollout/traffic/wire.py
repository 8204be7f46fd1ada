"""One HTTP/1.1 connection that carries one request at a time: what traffic needs, and nothing that costs more.

Requests are bytes that were built beforehand. After a server closed between two requests a new connection is made; a
request is never sent twice, because clients would not do so either (POST).
"""

import asyncio
from dataclasses import dataclass
from typing import Literal, cast

from holdfast.serving.rollout.contract.address import Address

MAX_HEAD_BYTES = 2**16
MAX_ANSWER_BYTES = 2**22

FailureKind = Literal["status", "shape", "connection", "timeout"]
_NO_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer."""

    status: int
    head: bytes
    """Status line and headers in lower case."""
    body: bytes
    reusable: bool
    """Whether the connection can carry another request."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No whole answer, and why."""

    kind: FailureKind
    reason: str
    sent: bool = True
    """Whether the request could leave at all."""


class Caller:
    """Asks one server, one request at a time."""

    def __init__(self, address: Address, seconds: float) -> None:
        """`seconds`: how long an answer may take, with the connection where one is made."""
        self._address, self._seconds = address, seconds
        self._connection: _Connection | None = None

    async def ask(self, request: bytes) -> HttpResponse | Failed:
        """The answer to `request`, or what came instead of one. Never raises."""
        connection = self._connection
        if connection is None or not connection.open:
            made = await self._connect()
            if isinstance(made, Failed):
                return made
            connection = self._connection = made
        timer = asyncio.get_running_loop().call_later(self._seconds, connection.give_up, self._seconds)
        try:
            return await connection.ask(request)
        finally:
            timer.cancel()

    def close(self) -> None:
        """Closes the connection, if any."""
        if self._connection is not None:
            self._connection.close()

    async def _connect(self) -> "_Connection | Failed":
        host, port, path = self._address.host, self._address.port, self._address.socket
        loop, where = asyncio.get_running_loop(), f"{host}:{port}" if path is None else str(path)
        try:
            if path is None:
                made = await asyncio.wait_for(loop.create_connection(_Connection, host, port), self._seconds)
            else:
                made = await asyncio.wait_for(loop.create_unix_connection(_Connection, str(path)), self._seconds)
        except TimeoutError:
            return Failed("timeout", f"{where}: no connection within {self._seconds:g} s", sent=False)
        except OSError as error:
            return Failed("connection", f"{where}: {error.strerror or error}", sent=False)
        return made[1]


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._asked: asyncio.Future[HttpResponse | Failed] | None = None
        self._received = b""

    @property
    def open(self) -> bool:
        """Whether it can carry a request."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> "asyncio.Future[HttpResponse | Failed]":
        assert self._transport is not None
        self._asked = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._asked

    def give_up(self, seconds: float) -> None:
        """The time of the request under way is over."""
        self._end(Failed("timeout", f"no answer within {seconds:g} s"))
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._asked is None:  # nothing was asked: no later answer can be trusted
            self.close()
            return
        self._received = self._received + data if self._received else data
        self._read(ended=False)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._asked is None:
            return
        if error is None and self._received:
            self._read(ended=True)
        else:
            self._end(Failed("connection", f"closed before the answer ({error or 'by the server'})"))

    def _read(self, *, ended: bool) -> None:
        try:
            answer = read_answer(self._received, ended=ended)
        except ValueError as error:
            self._end(Failed("connection", str(error)))
            self.close()
            return
        if answer is not None:
            self._end(answer)
            if not answer.reusable:
                self.close()

    def _end(self, outcome: HttpResponse | Failed) -> None:
        self._received = b""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(outcome)
        self._asked = None


def read_answer(data: bytes, *, ended: bool) -> HttpResponse | None:
    """The answer that `data` is, or None while bytes are missing; `ended`: no more bytes will come.

    Raises:
        ValueError: it is no HTTP/1.x answer, it is too large, or it ends too early.
    """
    stop = data.find(b"\r\n\r\n")
    if stop > MAX_HEAD_BYTES or len(data) > MAX_ANSWER_BYTES or (stop < 0 and len(data) > MAX_HEAD_BYTES):
        raise ValueError(f"expected at most {MAX_ANSWER_BYTES} bytes, found a longer answer")
    if stop < 0:
        _require_more(data, ended)
        return None
    head, rest = data[:stop].lower(), data[stop + 4 :]
    if not (head.startswith(b"http/1.") and head[9:12].isdigit()):
        raise ValueError(f"expected an HTTP/1.1 answer, found {data[:40]!r}")
    status = int(head[9:12])
    body = _body(head, rest, ended=ended or status in _NO_BODY)
    if body is None:
        _require_more(data, ended)
        return None
    whole, used = body
    keeps = head.startswith(b"http/1.1") and header(head, b"connection") != b"close"
    return HttpResponse(status, head, whole, keeps and used == len(rest) and not ended)


def header(head: bytes, name: bytes) -> bytes | None:
    """The first value of a header, in lower case; None when there is none."""
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    start = at + len(name) + 3
    stop = head.find(b"\r\n", start)
    return head[start : stop if stop >= 0 else None].strip()


def _require_more(data: bytes, ended: bool) -> None:
    if ended:
        raise ValueError(f"closed in the middle of an answer, after {len(data)} bytes")


def _body(head: bytes, rest: bytes, *, ended: bool) -> tuple[bytes, int] | None:
    """The body, and how many bytes of `rest` it takes; None while bytes are missing."""
    length = header(head, b"content-length")
    if length is not None:
        if not length.isdigit() or len(length) > 18:
            raise ValueError(f"expected a length, found content-length {length[:40]!r}")
        size = int(length)
        if size > MAX_ANSWER_BYTES:
            raise ValueError(f"expected at most {MAX_ANSWER_BYTES} bytes, found an answer of {size}")
        return (rest[:size], size) if len(rest) >= size else None
    if header(head, b"transfer-encoding") == b"chunked":
        return _unchunk(rest)
    return (rest, len(rest)) if ended else None


def _unchunk(rest: bytes) -> tuple[bytes, int] | None:
    parts: list[bytes] = []
    at = 0
    while True:
        stop = rest.find(b"\r\n", at)
        if stop < 0:
            return None
        digits = rest[at:stop].partition(b";")[0].strip()
        if not 0 < len(digits) <= 8 or digits.strip(b"0123456789abcdefABCDEF"):
            raise ValueError(f"expected the size of a chunk, found {digits[:20]!r}")
        size, at = int(digits, 16), stop + 2
        if size == 0:
            return _after_trailers(b"".join(parts), rest, at)
        if len(rest) < at + size + 2:
            return None
        parts.append(rest[at : at + size])
        at += size + 2


def _after_trailers(body: bytes, rest: bytes, at: int) -> tuple[bytes, int] | None:
    """What follows the last chunk: trailers, which are ignored, and an empty line."""
    if rest.startswith(b"\r\n", at):
        return body, at + 2
    stop = rest.find(b"\r\n\r\n", at)
    return (body, stop + 4) if stop >= 0 else None
