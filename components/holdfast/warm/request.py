"""What a warm process is asked for, and how the question travels."""

import json
import resource
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass

MAX_REQUEST = 2**23
"""Bytes of one request; arguments and environment of a process are at most a quarter of it on Linux."""
START, PREPARE, REAP = b"S", b"P", b"R"


@dataclass(frozen=True)
class Request:
    """One process to start: `python -m module arguments`."""

    module: str
    arguments: tuple[str, ...]
    env: Mapping[str, str]
    folder: str
    """The working folder."""
    limits: Mapping[str, tuple[int, int]]
    """Soft and hard limit by the number of the resource (`resource.RLIMIT_*`)."""
    libraries: tuple[str, ...] = ()
    """What to import first."""
    prepared: tuple[str, ...] = ()
    """What to import first, too, where it was to be prepared and is not there yet."""
    told: int | None = int(signal.SIGTERM)
    """The signal that it gets when who asked for it is gone; None: it lives on."""
    forks: bool = False
    """Whether it gets a warm process for processes of its own."""


def encoded(request: Request) -> bytes:
    """The request as `decoded` reads it."""
    return json.dumps(asdict(request)).encode()


def decoded(data: bytes) -> Request:
    """The request of `encoded`.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    given = json.loads(data)
    limits = {number: (int(soft), int(hard)) for number, (soft, hard) in given.pop("limits").items()}
    for name in ("arguments", "libraries", "prepared"):
        given[name] = tuple(given[name])
    return Request(**given, limits=limits)


def limits() -> dict[str, tuple[int, int]]:
    """The limits of this process, as `Request.limits`."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    numbers = sorted({int(getattr(resource, name)) for name in names})
    return {str(number): resource.getrlimit(number) for number in numbers}
