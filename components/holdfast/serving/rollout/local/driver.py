"""The driver of a local deployment: sends what it wants to the deployment's socket; light, and without asyncio."""

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from holdfast.errors import FencedError, RolloutError
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.contract.driver import Health

TIMEOUT_SECONDS = 5.0
_MAX_ANSWER = 2**20


@dataclass
class LocalDriver:
    """Implements `holdfast.serving.rollout.contract.driver.Driver` for one local deployment."""

    path: Path
    """The deployment's socket."""
    fence: int
    _socket: socket.socket | None = field(default=None, init=False)

    def apply(self, weight: int, shadow: bool) -> None:
        """As in the protocol; the same weight again only renews the lease."""
        self.ask("apply", weight=weight, shadow=shadow)

    def observe(self) -> Reading:
        """Envoy's own counters."""
        return TypeAdapter(Reading).validate_python(self.ask("observe")["reading"])

    def remove_candidate(self) -> None:
        """No route leads to the candidate any more; none does when the deployment is gone, with all that it started."""
        try:
            self.ask("remove")
        except RolloutError:
            if not self._is_gone():
                raise

    def promote(self) -> None:
        """All traffic on the candidate, and no lease any more."""
        self.ask("promote")

    def health(self) -> Health:
        """Which servers run; none when the deployment does not answer."""
        try:
            found = self.ask("health")
        except (RolloutError, FencedError):
            return Health(False, False, False)
        return Health(bool(found["router"]), bool(found["champion"]), bool(found["candidate"]))

    def ask(self, op: str, **facts: object) -> dict[str, Any]:
        """One request to the deployment.

        Raises:
            FencedError: a newer driver has spoken to it.
            RolloutError: it does not answer, or could not do it.
        """
        line = json.dumps({"op": op, "fence": self.fence, **facts}).encode() + b"\n"
        try:
            answer = json.loads(self._exchange(line))
        except (OSError, ValueError) as error:
            self.close()
            raise RolloutError(f"{self.path}: expected the local deployment to answer {op}, found {error!r}") from None
        if answer.get("fenced"):
            raise FencedError(answer["error"])
        if "error" in answer:
            raise RolloutError(f"{op}: {answer['error']}")
        return dict(answer)

    def close(self) -> None:
        """Ends the connection; the deployment is not touched."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _is_gone(self) -> bool:
        """Whether no process listens on the socket: a deployment that runs does, however busy it is."""
        try:
            _connect(self.path).close()
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:
            return False
        return False

    def _exchange(self, line: bytes) -> bytes:
        if self._socket is None:
            self._socket = _connect(self.path)
        self._socket.sendall(line)
        data = bytearray()
        while not data.endswith(b"\n"):
            more = self._socket.recv(2**16)
            if not more or len(data) > _MAX_ANSWER:
                raise ConnectionResetError(f"an answer of {len(data)} bytes that does not end")
            data += more
        return bytes(data)


def _connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(TIMEOUT_SECONDS)
    try:
        made.connect(str(path))
    except OSError:
        made.close()
        raise
    return made
