"""A step as a child process: its output goes to a log, and it never outlives the runner.

The child leads a process group of its own. When the runner is told to stop, the group is told too and given time to
write its checkpoint; when the runner is killed outright, the kernel signals the child. What a step leaves running in
its group is ended with it.
"""

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from holdfast.processes import dying_with_us, signal_group

GRACE_SECONDS = 20.0
"""How long a step has to write what it must keep once it was told to stop."""
TAIL_LINES = 20
_TAIL_BYTES = 64 * 1024
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[@-_]")


@dataclass(frozen=True)
class Ended:
    """How a child ended; negative `code`: by that signal."""

    code: int
    seconds: float
    tail: tuple[str, ...]
    """Its last lines, without colour codes."""


class StepProcess(Protocol):
    """A process that leads a group of its own, however it was started."""

    @property
    def pid(self) -> int:
        """Its number, and its group's; not given to another process before `wait`."""

    @property
    def handle(self) -> int:
        """A descriptor that can be read once it has ended (pidfd_open(2))."""

    def wait(self) -> int:
        """Its exit code, once; negative: the signal that ended it."""


Start = Callable[[Sequence[str], Mapping[str, str], int], StepProcess]
"""(command, environment, descriptor of the log) -> the running child."""


@dataclass(frozen=True)
class Fresh:
    """A child that is a new process."""

    process: "subprocess.Popen[bytes]"
    handle: int

    @property
    def pid(self) -> int:
        """Its number, and its group's."""
        return self.process.pid

    def wait(self) -> int:
        """Its exit code, once."""
        os.close(self.handle)
        return self.process.wait()


def fresh(command: Sequence[str], env: Mapping[str, str], output: int) -> Fresh:
    """Starts `command` as a new process that dies with this one."""
    process = subprocess.Popen(
        list(command),
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=dying_with_us(),
    )
    # The descriptor sees the end without reaping: until wait() the group's number cannot be given to another process.
    return Fresh(process, os.pidfd_open(process.pid))


def run_child(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None] | None = None,
    start: Start = fresh,
) -> Ended:
    """Runs `command` to its end, its output in `log`; `on_line` hears the newest line about twice a second."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as stream, _ending(start(command, env, stream.fileno())) as (child, ended):
        while not ended(0.5):
            if on_line is not None:
                on_line(next(iter(tail(log, 1)), ""))
    return Ended(child.code, time.monotonic() - started, tail(log, TAIL_LINES))


def tail(log: Path, lines: int) -> tuple[str, ...]:
    """The last `lines` lines that are not blank, without colour codes and without what a progress bar overwrote."""
    with log.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = stream.read().decode(errors="replace")
    kept = [_ANSI.sub("", line).rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return tuple([line for line in kept if line][-lines:])


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """While inside, SIGTERM ends this process as an interrupt does, so that children are told (main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class _Watched:
    code: int = 0


@contextmanager
def _ending(child: StepProcess) -> Iterator[tuple[_Watched, Callable[[float], bool]]]:
    """The child's code, known on the way out, and `ended(seconds)`, which waits; leaving early stops its group."""
    watched, ended = _Watched(), select.poll()
    ended.register(child.handle, select.POLLIN)
    try:
        yield watched, lambda seconds: bool(ended.poll(seconds * 1000))
    finally:
        try:
            if not ended.poll(0):
                signal_group(child.pid, signal.SIGTERM)
                ended.poll(GRACE_SECONDS * 1000)
        finally:
            signal_group(child.pid, signal.SIGKILL)
            watched.code = child.wait()
