"""Processes, groups and ports of this machine: children that never outlive their parent, and what /proc knows.

Start children from the main thread: Linux counts the death of the thread that started a child as that of its parent.
"""

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from holdfast.errors import HoldfastError, RefusedError, RolloutError

LOOPBACK = "127.0.0.1"
CALM: dict[str, str] = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Without these, importing numpy, scipy and pyarrow starts threads. A step sets its own `--threads` in each library."""
START_SECONDS = 240.0
"""A busy machine may take minutes to import what a server needs."""
STOP_SECONDS = 5.0
POLL_SECONDS = 0.05
_TAIL_BYTES = 2000

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


@contextmanager
def stopped_by(*numbers: signal.Signals) -> Iterator[threading.Event]:
    """Turns these signals into an event inside; only the main thread can, in another one the event is never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Process(Protocol):
    """What `subprocess.Popen` gives, as far as a parent needs it."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def returncode(self) -> int | None:
        """Its exit code once `poll` or `wait` has seen its end, minus the number of a signal."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; raises `subprocess.TimeoutExpired`."""

    def send_signal(self, sig: int) -> None:
        """Sends it a signal, unless it has ended."""

    def terminate(self) -> None:
        """Sends SIGTERM."""

    def kill(self) -> None:
        """Sends SIGKILL."""


def reap(child: Process, seconds: float) -> None:
    """Waits for the end of a child that was asked to end, and kills it after `seconds`."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def signal_group(group: int, number: signal.Signals) -> None:
    """Sends a signal to every process of a group; a group that is gone is no error."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


@dataclass(frozen=True)
class ServerProcess:
    """A child that serves, its output in a log."""

    name: str
    process: Process
    log: Path

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, minus the number of a signal; None while it runs."""
        return self.process.poll()

    def tail(self) -> str:
        """The end of its log."""
        return tail(self.log)


def tail(log: Path) -> str:
    """The end of a log; empty where there is none."""
    data = log.read_bytes() if log.exists() else b""
    return data[-_TAIL_BYTES:].decode(errors="replace").strip()


@contextmanager
def children() -> Iterator[list[ServerProcess]]:
    """A list of children; on the way out all are told to end at once, and killed when they do not."""
    started: list[ServerProcess] = []
    try:
        yield started
    finally:
        for child in started:
            child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in started:
            reap(child.process, max(deadline - time.monotonic(), 0.1))


def start(name: str, command: Sequence[str], folder: Path) -> ServerProcess:
    """Starts `command` (first word: an absolute path) in `folder`, its output in `folder/NAME.log`."""
    log = folder / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=server_environment(),
            preexec_fn=dying_with_us(signal.SIGKILL),
        )
    return ServerProcess(name, process, log)


async def wait_ready(
    child: ServerProcess, ready: Callable[[], Awaitable[bool]], seconds: float = START_SECONDS
) -> None:
    """Returns when `ready` gives true.

    Raises:
        RefusedError: the server ended with exit code 3: it refused the model.
        RolloutError: it ended otherwise, or was not ready in time; with the end of its log.
    """
    import asyncio

    deadline = time.monotonic() + seconds
    while not await ready():
        if not child.alive:
            raise _ended(child)
        if time.monotonic() > deadline:
            raise RolloutError(
                f"{child.name}: expected to be ready within {seconds:g} s, found: {child.tail()}\n"
                f"{child.name} was not ready within {seconds:g} s; start it again when the machine is less busy"
            )
        await asyncio.sleep(POLL_SECONDS)


def _ended(child: ServerProcess) -> RolloutError | RefusedError:
    code = child.process.returncode
    if code == RefusedError.exit_code:
        return RefusedError(f"{child.name}: {child.tail().removeprefix('error: ')}")
    return RolloutError(f"{child.name}: expected to start, found exit code {code}: {child.tail()}")


def server_environment() -> dict[str, str]:
    """This process's environment, without what would change a server's settings; its libraries start no threads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLSERVER_")}
    return {**kept, **CALM, "PYTHONUNBUFFERED": "1"}


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
    """Refuses a loopback port on which a process listens.

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
