"""Where requests go, and the bytes of one."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.errors import RolloutError


@dataclass(frozen=True)
class Address:
    """Where requests go."""

    host: str
    port: int
    path: str
    socket: Path | None = None
    """A unix socket that is connected to instead of host and port."""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Reads `http://HOST[:PORT]/PATH`.

        Raises:
            RolloutError: it is something else.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 80
        except ValueError as error:
            raise RolloutError(f"{url!r}: expected http://HOST:PORT/PATH, found an address with {error}") from None
        plain = url.isascii() and url.isprintable() and " " not in url
        if parts.scheme != "http" or not host or parts.username is not None or not plain:
            raise RolloutError(f"{url!r}: expected http://HOST:PORT/PATH, found something else")
        return cls(host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))

    def request(self, body: bytes, *headers: str) -> bytes:
        """The bytes of a POST of JSON."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = (
            f"POST {self.path} HTTP/1.1",
            f"host: {host}:{self.port}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *headers,
        )
        return "\r\n".join((*lines, "\r\n")).encode() + body
