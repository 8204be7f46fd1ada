"""Processes, groups and ports of this machine: children that never outlive their parent, and what /proc knows."""

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from holdfast.errors import HoldfastError, RolloutError

LOOPBACK = "127.0.0.1"

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec a child must not take locks.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Asks the kernel to send `with_signal` to this process when its parent is gone (Linux, prctl(2))."""
    _PRCTL(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)


def dying_with_us(with_signal: int = signal.SIGTERM) -> Callable[[], None]:
    """A `preexec_fn`: the child gets `with_signal` when the thread that started it, or this process, is gone."""
    parent = os.getpid()

    def arrange() -> None:
        die_with_parent(with_signal)
        if os.getppid() != parent:  # the parent ended before the request was made
            os._exit(128 + int(with_signal))

    return arrange


def started(pid: int) -> int | None:
    """When the process started, in ticks since boot; None when it does not run (ended and not waited for: neither)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def runs(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    return started(pid) is not None


class Killable(Protocol):
    """A child, as far as ending it needs it."""

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; raises `subprocess.TimeoutExpired`."""

    def kill(self) -> None:
        """Sends SIGKILL."""


def reap(child: Killable, seconds: float) -> None:
    """Waits for the end of a child that was asked to end, and kills it after `seconds`."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def signal_group(group: int, number: signal.Signals) -> None:
    """Sends a signal to every process of a group; a group that is gone is none to complain about."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Free loopback ports that no other process gets meanwhile; a child that sets SO_REUSEADDR can listen on them."""
    sockets = [_bind(0, RolloutError) for _ in range(count)]
    try:
        yield [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def require_free(port: int, refusal: type[HoldfastError] = RolloutError) -> None:
    """Refuses a loopback port on which somebody listens.

    Raises:
        HoldfastError: of the kind `refusal`: it is taken.
    """
    _bind(port, refusal).close()


def _bind(port: int, refusal: type[HoldfastError]) -> socket.socket:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((LOOPBACK, port))
    except OSError as error:
        held.close()
        raise refusal(f"{LOOPBACK}:{port}: expected a free port, found it taken ({error.strerror})") from None
    return held
