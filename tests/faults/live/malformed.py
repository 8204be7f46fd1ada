"""Requests that a client got wrong, as bytes: what must come back for each is a 4xx of one line, from either arm.

A table for tests and for the run with hostile clients. Every entry is a kind, not a case: what they have in common is
that the client is at fault, so that none may count as a failure of a server.
"""

import gzip
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Malformed:
    """One request and the statuses that are right for it."""

    name: str
    data: bytes
    statuses: tuple[int, ...] = (400,)


@dataclass(frozen=True)
class Target:
    """Who is asked: a served model, and one row that it takes."""

    model: str
    shape: tuple[int, ...]
    row: tuple[float, ...]

    @property
    def infer(self) -> str:
        """The path of a good request."""
        return f"/v2/models/{self.model}/infer"

    def body(self, **changes: object) -> bytes:
        """A good request with another input tensor."""
        return json.dumps({"inputs": [self.tensor(**changes)]}, ensure_ascii=False).encode()

    def tensor(self, **changes: object) -> dict[str, object]:
        """A good tensor, changed."""
        good = {"name": "input", "datatype": "FP32", "shape": [1, *self.shape], "data": list(self.row)}
        return {**good, **changes}

    def post(self, body: bytes, *headers: str, path: str | None = None, method: str = "POST") -> bytes:
        """The bytes of a request."""
        length = f"content-length: {len(body)}"
        kind = () if any(line.startswith("content-type") for line in headers) else ("content-type: application/json",)
        lines = (f"{method} {path or self.infer} HTTP/1.1", "host: models", *kind, *headers, length)
        return "\r\n".join((*lines, "\r\n")).encode("latin-1") + body


def malformed(target: Target, max_body_bytes: int) -> tuple[Malformed, ...]:
    """All kinds; none of them is a request that any server of this model could answer."""
    return *for_servers(target), *for_routers(target, max_body_bytes)


def for_servers(target: Target) -> tuple[Malformed, ...]:
    """Those that a router lets through: what is wrong is in the body, or in what a header has about it."""
    groups = (_wrong_ids, _wrong_tensors, _wrong_values, _wrong_json, _wrong_encodings)
    return tuple(found for group in groups for found in group(target))


def for_routers(target: Target, max_body_bytes: int) -> tuple[Malformed, ...]:
    """Those that must not reach a server: other paths and methods, and what is no HTTP/1.1."""
    return *_wrong_paths(target), *_wrong_framing(target, max_body_bytes)


def _wrong_ids(to: Target) -> tuple[Malformed, ...]:
    ids = {
        "id with a line end": "a\r\nx-injected: 1",
        "id with a NUL": "a\x00b",
        "id of 100,000 characters": "a" * 100_000,
        "id that is a number": 7,
    }
    return tuple(Malformed(name, to.post(_json({"id": value, "inputs": [to.tensor()]}))) for name, value in ids.items())


def _wrong_tensors(to: Target) -> tuple[Malformed, ...]:
    numbers, strings = len(to.row), [str(value) for value in to.row]
    changes: Mapping[str, dict[str, object]] = {
        "another datatype": {"datatype": "BYTES", "data": strings},
        "an unknown datatype": {"datatype": "FP7"},
        "integers to a float model": {"datatype": "INT64", "data": [0] * numbers},
        "too few numbers": {"data": list(to.row)[1:]},
        "one feature less": {"shape": [1, numbers - 1], "data": list(to.row)[1:]},
        "a negative size": {"shape": [-1, *to.shape]},
        "a size that is no whole number": {"shape": [1.5, *to.shape]},
        "a size with a point": {"shape": [1.0, *to.shape]},
        "a size as text": {"shape": ["1", *to.shape]},
        "true as a size": {"shape": [True, *to.shape]},
        "lists nested otherwise than the shape": {"data": [[value] for value in to.row]},
        "bytes promised and not sent": {"parameters": {"binary_data_size": 4 * numbers}},
        "a product of sizes beyond 2^64": {"shape": [2**62, 2**62, *to.shape]},
        "10,000 dimensions": {"shape": [1] * 10_000},
        "no rows": {"shape": [0, *to.shape], "data": []},
        "10^6 rows that are not there": {"shape": [10**6, *to.shape]},
        "no shape": {"shape": []},
        "another name": {"name": "x" * 1000},
    }
    two = _json({"inputs": [to.tensor(), to.tensor()]})
    output = _json({"inputs": [to.tensor()], "outputs": [{"name": "no-such"}]})
    return (
        *(Malformed(name, to.post(to.body(**change))) for name, change in changes.items()),
        Malformed("two inputs", to.post(two)),
        Malformed("an unknown output", to.post(output)),
        Malformed("no inputs", to.post(_json({"inputs": []}))),
    )


def _wrong_values(to: Target) -> tuple[Malformed, ...]:
    numbers, good = len(to.row), to.body(data=["PLACE", *to.row[1:]])
    lists: Mapping[str, Sequence[object]] = {
        "strings as numbers": [str(value) for value in to.row],
        "booleans as numbers": [True] * numbers,
        "null as a number": [None] * numbers,
        "objects as numbers": [{}] * numbers,
        "a boolean in lists": [[True, *to.row[1:]]],
        "true among numbers": [True, *to.row[1:]],
        "ragged rows": [[1.0], [1.0, 2.0], *list(to.row)[3:]],
    }
    literals = {"NaN": b"NaN", "infinity": b"-Infinity", "1e400": b"1e400", "an integer of 5,000 digits": b"9" * 5000}
    return (
        *(Malformed(name, to.post(to.body(data=list(data)))) for name, data in lists.items()),
        *(Malformed(name, to.post(good.replace(b'"PLACE"', value))) for name, value in literals.items()),
        Malformed("a number that float32 cannot hold", to.post(good.replace(b'"PLACE"', b"1e300"))),
        Malformed("a text as data", to.post(to.body(data="x"))),
    )


def _wrong_json(to: Target) -> tuple[Malformed, ...]:
    good = to.body()
    bodies = {
        "an empty body": b"",
        "half a body": good[: len(good) // 2],
        "a list": b"[]",
        "a number": b"7",
        "100,000 brackets": b"[" * 100_000,
        "900 nested lists": to.body(data="PLACE").replace(b'"PLACE"', b"[" * 900 + b"]" * 900),
        "bytes that are not UTF-8": good.replace(b'"input"', b'"\xff\xfe"'),
        "half a surrogate": good.replace(b'"input"', b'"\\ud800"'),
        "parameters that are no object": _json({"inputs": [to.tensor()], "parameters": [1]}),
        "a content type that is no text": _json({"inputs": [to.tensor()], "parameters": {"content_type": {}}}),
        "headers inside that are no object": _json({"inputs": [to.tensor()], "parameters": {"headers": 5}}),
    }
    return tuple(Malformed(name, to.post(body)) for name, body in bodies.items())


def _wrong_encodings(to: Target) -> tuple[Malformed, ...]:
    head = _json({"inputs": [to.tensor(parameters={"binary_data_size": 4 * len(to.row)})]})
    binary = head + struct.pack(f"<{len(to.row)}f", *to.row)
    packed = gzip.compress(b"0" * 20_000_000)
    extension = f"inference-header-content-length: {len(head)}"
    return (
        Malformed("tensor bytes behind the JSON", to.post(binary, extension)),
        Malformed("tensor bytes as octets", to.post(binary, extension, "content-type: application/octet-stream")),
        Malformed("another content type", to.post(binary, "content-type: application/x-tar"), (400, 415)),
        Malformed("a form", to.post(b"a=b", "content-type: application/x-www-form-urlencoded"), (400, 415)),
        Malformed("gzip", to.post(gzip.compress(to.body()), "content-encoding: gzip"), (400, 415)),
        Malformed("a gzip bomb", to.post(packed, "content-encoding: gzip"), (400, 415)),
        Malformed("bytes beyond ASCII in a header", to.post(b"{", "x-note: \xe9\xff")),
    )


def _wrong_paths(to: Target) -> tuple[Malformed, ...]:
    good, model = to.body(), f"/v2/models/{to.model}"
    unload, repository = f"/v2/repository/models/{to.model}/unload", "/v2/repository"
    paths = {
        "unload": unload,
        "load": unload.replace("unload", "load"),
        "unload behind dots": f"{model}/../../repository/models/{to.model}/unload",
        "unload behind encoded dots": f"{model}/%2e%2e/%2e%2e/repository/models/{to.model}/unload",
        "unload behind slashes": f"//v2///repository//models/{to.model}//unload",
        "unload behind an encoded slash": unload.replace("/models/", "%2fmodels%2f"),
        "unload in capitals": unload.upper(),
        "unload at an absolute address": f"http://models{unload}",
        "index of the repository": f"{repository}/index",
        "metrics": "/metrics",
        "another model": "/v2/models/another/infer",
        "another version": f"{model}/versions/987654/infer",
        "a stream": f"{model}/infer_stream",
        "gRPC": "/inference.GRPCInferenceService/ModelInfer",
    }
    refused = (400, 404)
    return (
        *(Malformed(name, to.post(good, path=path), refused) for name, path in paths.items()),
        Malformed("a fragment in the path", to.post(good, path=f"{to.infer}#x")),
        Malformed("a path of 20,000 characters", to.post(good, path=f"{to.infer}?{'a' * 20_000}"), (414, 431)),
        Malformed("documentation", to.post(b"", path=f"{model}/docs", method="GET"), refused),
        Malformed("DELETE", to.post(good, method="DELETE"), (404, 405)),
        Malformed("GET of infer", to.post(good, method="GET"), (404, 405)),
        Malformed("TRACE", to.post(b"", method="TRACE"), (404, 405)),
    )


def _wrong_framing(to: Target, max_body_bytes: int) -> tuple[Malformed, ...]:
    good = to.post(to.body())
    head, _, body = good.partition(b"\r\n\r\n")
    without = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"content-length"))
    chunked = without + b"\r\ntransfer-encoding: chunked"
    huge = without + f"\r\ncontent-length: {max_body_bytes + 1}\r\n\r\n".encode()
    return (
        Malformed("a body above the limit", huge + b"x" * (max_body_bytes + 1), (413,)),
        Malformed("HTTP/1.0", good.replace(b"HTTP/1.1", b"HTTP/1.0"), (400, 426)),
        Malformed("HTTP/2 without asking", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Malformed("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
        Malformed("no host", good.replace(b"host: models\r\n", b"")),
        Malformed("a negative length", without + b"\r\ncontent-length: -2\r\n\r\n" + body),
        Malformed("two lengths", head + b"\r\ncontent-length: 1\r\n\r\n" + body),
        Malformed("length and chunks", head + b"\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        Malformed("garbage for a chunk", chunked + b"\r\n\r\nzz\r\n"),
        Malformed("an unknown transfer encoding", without + b"\r\ntransfer-encoding: x\r\n\r\n", (400, 501)),
        Malformed("200 headers", head + b"".join(b"\r\nh%d: 1" % i for i in range(200)) + b"\r\n\r\n" + body, (431,)),
        Malformed("a header of 20,000 bytes", head + b"\r\na: " + b"b" * 20_000 + b"\r\n\r\n" + body, (431,)),
        Malformed("a line end in a header's name", head + b"\r\na\nb: 1\r\n\r\n" + body),
        Malformed("an upgrade", head + b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + body, (400, 403)),
        Malformed("CONNECT", b"CONNECT models:80 HTTP/1.1\r\nhost: models:80\r\n\r\n", (400, 403, 404, 405)),
    )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
