"""Work on a file from elsewhere in a process of its own, which the kernel ends when it takes too much.

The child is a fork: what was imported is there. It may use memory on top of what it begins with, CPU time, and a
stretch of time by the clock; what it found comes back through a pipe as bytes.
"""

import os
import resource
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import LimitError
from holdfast.processes import die_with_parent

_MEMORY_CODE, _BROKEN_CODE = 97, 98
_PAGE = resource.getpagesize()
_PIECE = 2**16


@dataclass(frozen=True)
class Allowance:
    """What a child may use."""

    memory: int
    """Bytes on top of what it has when it begins."""
    cpu_seconds: int
    seconds: float
    """By the clock."""


def in_child(work: Callable[[], bytes], allowance: Allowance, name: str) -> bytes:
    """What `work` returns, computed in a child; messages call its file `name`.

    Raises:
        LimitError: it took more memory or time, or ended without an answer.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _end(work, allowance, writing)
    os.close(writing)
    try:
        answer = _answer(reading, time.monotonic() + allowance.seconds)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)  # where it has ended, it waits for us: its number is still its own
        _, status, usage = os.wait4(child, 0)
    if answer is None:
        raise LimitError(f"{name}: expected to be read within {allowance.seconds:g} s, found a file that takes longer")
    code = os.waitstatus_to_exitcode(status)
    if answer[-1:] == b"\n":
        return answer[:-1]
    if code == -signal.SIGXCPU or usage.ru_utime + usage.ru_stime >= allowance.cpu_seconds:
        limit = f"{allowance.cpu_seconds} s of CPU time"
        raise LimitError(f"{name}: expected to be read within {limit}, found a file that takes more")
    if code == _BROKEN_CODE:
        raise LimitError(f"{name}: expected a file that can be judged, found one at which the judge failed")
    limit = f"{allowance.memory >> 20} MiB of memory"
    raise LimitError(f"{name}: expected to be read within {limit}, found a file that takes more")


def _answer(descriptor: int, deadline: float) -> bytes | None:
    """All that comes until the other end is closed; None when time is up."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            part = os.read(descriptor, _PIECE)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None


def _end(work: Callable[[], bytes], allowance: Allowance, descriptor: int) -> None:
    """In the child: works, answers and ends, without a line of the parent's own clean-up."""
    code = _BROKEN_CODE
    try:
        die_with_parent(signal.SIGKILL)
        _hold(allowance)
        left = memoryview(work() + b"\n")
        while left:
            left = left[os.write(descriptor, left) :]
        code = 0
    except MemoryError:
        code = _MEMORY_CODE
    finally:
        os._exit(code)


def _hold(allowance: Allowance) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    cpu = allowance.cpu_seconds
    for kind, limit in (
        (resource.RLIMIT_AS, used + allowance.memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (most, most if kind != resource.RLIMIT_CPU else hard))
