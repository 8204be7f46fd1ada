"""One HTTP connection that is kept. Every exchange is bounded in time and in bytes, also when the server misbehaves."""

import http.client
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.errors import ClusterError, HoldfastError, WorkloadError

SECONDS = 5.0
"""An exchange takes no longer, connecting apart (which is bounded by the same)."""
MAX_BYTES = 8 * 2**20
_CHUNK = 2**16


class HttpError(ClusterError):
    """No whole answer: refused, reset, late, too long, or not HTTP. Whether the request had an effect is unknown."""


@dataclass(frozen=True)
class HttpResponse:
    """A whole answer."""

    status: int
    data: bytes
    retry_after: float | None
    """Seconds that the server asked to wait."""


@dataclass(frozen=True)
class Trust:
    """Certificates: of an https server, and our own."""

    ca_file: Path | None = None
    """Left out: the system's."""
    ca_data: str | None = None
    """PEM; instead of the file."""
    server_name: str | None = None
    """The name in the server's certificate; left out: the host of its address. Behind a tunnel they differ."""
    certificate: tuple[Path, Path] | None = None
    """The client's certificate and key."""
    certificate_data: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """The same as PEM."""

    def context(self) -> ssl.SSLContext:
        """A new one, so that rotated files are taken up; certificates and host names are always checked."""
        made = ssl.create_default_context(cafile=self.ca_file, cadata=self.ca_data)
        if self.certificate is not None:
            made.load_cert_chain(*self.certificate)
        if self.certificate_data is not None:
            _load(made, *self.certificate_data)
        return made


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """The ssl module takes files only: they lie in a private folder for as long as it reads them."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        files = [Path(folder) / name for name in ("client.crt", "client.key")]
        for file, data in zip(files, (certificate, key), strict=True):
            file.touch(mode=0o600)
            file.write_bytes(data)
        context.load_cert_chain(files[0], files[1])


class _TlsConnection(http.client.HTTPConnection):
    """HTTPS; unlike `http.client.HTTPSConnection` with the server's name where that is not the host of the address."""

    default_port = http.client.HTTPS_PORT

    def __init__(self, trust: Trust, host: str, port: int | None, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._trust = trust

    def connect(self) -> None:
        context = self._trust.context()
        super().connect()
        self.sock = context.wrap_socket(self.sock, server_hostname=self._trust.server_name or self.host)


@dataclass
class HttpClient:
    """A connection to `url` (http or https, with or without a path before every request's own); thread-safe."""

    url: str
    trust: Trust = Trust()
    seconds: float = SECONDS
    max_bytes: int = MAX_BYTES
    _kept: http.client.HTTPConnection | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise WorkloadError(f"{self.url}: expected http://HOST[:PORT][/PATH] or https")

    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> HttpResponse:
        """Sends one request and reads the whole answer.

        A kept connection that the server has closed meanwhile is opened again for a GET, never for a request that may
        have had an effect.

        Raises:
            HttpError: there is no whole answer.
        """
        with self._lock:
            kept = self._kept is not None
            try:
                return self._once(method, path, headers, body)
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                if not (kept and method == "GET"):
                    raise self._error(method, path, error) from None
            except (OSError, http.client.HTTPException) as error:
                raise self._error(method, path, error) from None
            try:
                return self._once(method, path, headers, body)
            except (OSError, http.client.HTTPException) as error:
                raise self._error(method, path, error) from None

    def present(self, certificate: tuple[bytes, bytes] | None) -> None:
        """Shows this client certificate (PEM) from now on; a connection that showed another is closed."""
        with self._lock:
            if certificate != self.trust.certificate_data:
                self.trust = replace(self.trust, certificate_data=certificate)
                self._drop()

    def close(self) -> None:
        """Ends the connection; the next exchange opens a new one."""
        with self._lock:
            self._drop()

    def _once(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> HttpResponse:
        try:
            connection = self._kept = self._kept or self._connect()
            with _cut_after(self.seconds, connection.sock) as late:
                try:
                    connection.request(method, urlsplit(self.url).path.rstrip("/") + path, body, dict(headers))
                    response = connection.getresponse()
                    data = self._read(response)
                except (OSError, http.client.HTTPException):
                    if late.is_set():
                        raise TimeoutError(f"no whole answer within {self.seconds:g} s") from None
                    raise
        except (OSError, http.client.HTTPException, HoldfastError):
            self._drop()
            raise
        if response.will_close:
            self._drop()
        return HttpResponse(response.status, data, _seconds(response.headers.get("Retry-After")))

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, tls = parts.hostname or "", parts.scheme == "https"
        kind = partial(_TlsConnection, self.trust) if tls else http.client.HTTPConnection
        made: http.client.HTTPConnection = kind(host, parts.port, timeout=self.seconds)
        made.connect()
        return made

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        found = bytearray()
        while chunk := response.read(_CHUNK):
            found += chunk
            if len(found) > self.max_bytes:
                raise HttpError(f"{self.url}: expected at most {self.max_bytes} bytes, found more")
        if response.length:
            raise http.client.IncompleteRead(bytes(found), response.length)
        return bytes(found)

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _error(self, method: str, path: str, error: Exception) -> HttpError:
        what = str(error) or type(error).__name__
        return HttpError(f"{self.url}: {method} {path.partition('?')[0]}: no answer: {what}"[:300])


def bearer(token_file: Path | None) -> dict[str, str]:
    """The header that carries the token of a file, read again for every call: projected tokens are rotated.

    Raises:
        ClusterError: the file cannot be read.
    """
    if token_file is None:
        return {}
    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{token_file}: expected a token, found none ({error})") from None
    return {"Authorization": f"Bearer {token}"} if token else {}


@contextmanager
def _cut_after(seconds: float, held: socket.socket) -> Iterator[threading.Event]:
    """Ends what goes on on the socket after `seconds`, so that a server that trickles does not hold us."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdigit() else None
