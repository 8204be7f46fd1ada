"""`python -m benchmarks.served.echo PORT`: gives every request's body back; HTTP/1.1 on loopback, kept alive."""

import asyncio
import sys


class Echo(asyncio.Protocol):
    """One connection; requests without pipelining, as Envoy sends them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers where to answer."""
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answers when the body is whole."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        self._received = b""
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(answer + body)  # type: ignore[attr-defined]


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)


async def main(port: int) -> None:
    """Serves until it is ended."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
