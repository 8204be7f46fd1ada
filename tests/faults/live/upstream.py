"""`python -m tests.faults.live.upstream PORT VERSION [FAULT]`: answers of the right shape, made of nothing, very fast.

For runs in which no model matters. FAULT is KIND@N: from live request number N on the server fails in that way.
"""

import asyncio
import json
import os
import signal
import sys

KINDS = ("error", "slow", "shape", "nan", "hang", "die")
SLOW_SECONDS = 0.4


class Upstream(asyncio.Protocol):
    """One connection; requests without pipelining, as Envoy sends them."""

    live = 0
    version, kind, begins = "0", "", -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers where to answer."""
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answers when the body is whole."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        lower = head.lower()
        if not end or len(body) < _length(lower):
            return
        self._received = b""
        if b"\r\nx-rollout:" not in lower and b"-shadow" not in lower:
            Upstream.live += 1
        bad = self.kind if self.kind and Upstream.live >= self.begins else ""
        if bad == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if bad == "slow":
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._answer, "")
        elif bad != "hang":
            self._answer(bad)

    def _answer(self, bad: str) -> None:
        if self._transport.is_closing():
            return
        status, data = (b"500 Internal Server Error", b"{}") if bad == "error" else (b"200 OK", ANSWERS[bad])
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(data))
        self._transport.write(head + data)  # type: ignore[attr-defined]


def _length(head: bytes) -> int:
    return next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)


def answer(version: str, probabilities: list[float]) -> bytes:
    """A V2 answer to one row."""
    outputs = [
        {"name": "label", "shape": [1], "datatype": "INT64", "data": [0]},
        {"name": "probabilities", "shape": [1, 10], "datatype": "FP32", "data": probabilities},
    ]
    return json.dumps({"model_name": "digits", "model_version": version, "outputs": outputs}).encode()


ANSWERS: dict[str, bytes] = {}


async def main(port: int, version: str, fault: str) -> None:
    """Serves until it is ended."""
    kind, _, begins = fault.partition("@")
    Upstream.version, Upstream.kind, Upstream.begins = version, kind, int(begins or -1)
    ANSWERS[""] = answer(version, [0.91] + [0.01] * 9)
    ANSWERS["shape"] = answer(version, [0.5, 0.5])
    ANSWERS["nan"] = answer(version, [float("nan")] + [0.01] * 9)
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
