"""The servers as children of this process: started on loopback, watched, and gone with their parent.

Start them from the main thread: Linux counts the death of the *thread* that started a child as the death of its parent.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import RefusedError, RolloutError
from holdfast.processes import dying_with_us, reap
from holdfast.processes import reserved_ports as reserved_ports
from holdfast.warm import children as warm
from holdfast.warm.children import Process
from holdfast.warm.libraries import CALM

START_SECONDS = 240.0
"""A busy machine may take minutes to import what a server needs."""
STOP_SECONDS = 5.0
POLL_SECONDS = 0.05
_TAIL_BYTES = 2000


@dataclass(frozen=True)
class Child:
    """One server process."""

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
        data = self.log.read_bytes() if self.log.exists() else b""
        return data[-_TAIL_BYTES:].decode(errors="replace").strip()


@contextmanager
def children() -> Iterator[list[Child]]:
    """A list of children; on the way out all are told to end at once, and killed when they do not."""
    started: list[Child] = []
    try:
        yield started
    finally:
        for child in started:
            child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in started:
            reap(child.process, max(deadline - time.monotonic(), 0.1))


def start_module(name: str, module: str, arguments: Sequence[str], folder: Path) -> Child:
    """Starts `python -m module arguments` in `folder`, its output in `folder/NAME.log`."""
    log = folder / f"{name}.log"
    with log.open("wb") as stream:
        process = warm.start(
            module, arguments, out=stream.fileno(), folder=folder, env=_environment(), told=signal.SIGKILL
        )
    return Child(name, process, log)


def start(name: str, command: Sequence[str], folder: Path) -> Child:
    """Starts `command` (first word: an absolute path) in `folder`, its output in `folder/NAME.log`."""
    log = folder / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_environment(),
            preexec_fn=dying_with_us(signal.SIGKILL),
        )
    return Child(name, process, log)


async def wait_ready(child: Child, ready: Callable[[], Awaitable[bool]], seconds: float = START_SECONDS) -> None:
    """Returns when `ready` says so.

    Raises:
        RefusedError: the server ended with exit code 3: it refused the model.
        RolloutError: it ended otherwise, or was not ready in time; with the end of its log.
    """
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


def _ended(child: Child) -> RolloutError | RefusedError:
    code = child.process.returncode
    if code == RefusedError.exit_code:
        return RefusedError(f"{child.name}: {child.tail().removeprefix('error: ')}")
    return RolloutError(f"{child.name}: expected to start, found exit code {code}: {child.tail()}")


def _environment() -> dict[str, str]:
    """This process's, without what would change a server's settings, and with one thread each: torch's is set later."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLSERVER_")}
    return {**kept, **CALM, "PYTHONUNBUFFERED": "1"}
