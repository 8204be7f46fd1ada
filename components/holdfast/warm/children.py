"""Processes that a step starts: forks of its warm process where it has one, otherwise processes of their own.

Start them from the main thread: Linux counts the death of the thread that started a child as the death of its parent.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.processes import Process, dying_with_us
from holdfast.warm.request import REAP, START, Request, encoded, limits

_MAX_ANSWER = 2**16
_ours: list[tuple[socket.socket, Mapping[str, str] | None]] = []
"""Our end to the warm process, and the environment of its forks when that is not ours."""


@dataclass(frozen=True)
class Fork:
    """A fork that its warm process keeps for us."""

    pid: int
    handle: int
    """Can be read once it has ended (pidfd_open(2))."""
    answer: socket.socket
    told: int = int(signal.SIGTERM)
    """The signal that ends it when its warm process dies."""

    def wait(self) -> int:
        """Its exit code, once; negative: the signal that ended it. What is left of its group is killed."""
        try:
            self.answer.send(REAP)
            answer = self.answer.recv(_MAX_ANSWER)
        except OSError:
            answer = b""
        self.answer.close()
        os.close(self.handle)
        return int(json.loads(answer)["code"]) if answer else -self.told


class NotForkedError(Exception):
    """Why a warm process does not fork."""


class Forked:
    """A `Process` that is a fork."""

    def __init__(self, fork: Fork) -> None:
        self._fork = fork
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Its number."""
        return self._fork.pid

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        """Sends it a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._fork.handle, sig)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            waiting = select.poll()
            waiting.register(self._fork.handle, select.POLLIN)
            if waiting.poll(None if timeout is None else timeout * 1000):
                self.returncode = self._fork.wait()
        return self.returncode


def serve_from(control: socket.socket) -> None:
    """From now on what this process starts are forks of the warm process at the other end."""
    _ours[:] = [(control, None)]


@contextmanager
def lent(control: socket.socket, env: Mapping[str, str]) -> Iterator[None]:
    """Inside, what this process starts are forks, with the environment `env`, of the warm process at the other end."""
    before = _ours[:]
    _ours[:] = [(control, env)]
    try:
        yield
    finally:
        _ours[:] = before


def start(
    module: str,
    arguments: Sequence[str],
    *,
    out: int,
    errors: int | None = None,
    stdin: int | None = None,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    told: int | None = int(signal.SIGTERM),
    forks: bool = False,
    libraries: tuple[str, ...] = (),
) -> Process:
    """Starts `python -m module arguments`.

    Args:
        module: to run.
        arguments: of it.
        out: descriptor of its standard output.
        errors: of its standard error; None: that of its standard output.
        stdin: of its standard input; None: nothing to read.
        folder: where it works; None: here.
        env: its environment; None: ours.
        told: the signal that it gets when this process is gone; None: it outlives us, in a session of its own.
        forks: whether it starts processes of this kind itself.
        libraries: what a fork has imported already (`holdfast.warm.libraries`).
    """
    errors = out if errors is None else errors
    folder = Path.cwd() if folder is None else folder
    for control, theirs in _ours:
        where = dict(env or theirs or os.environ), str(folder), limits()
        request = Request(module, tuple(arguments), *where, libraries=libraries, told=told, forks=forks)
        with _input(stdin) as descriptor, contextlib.suppress(NotForkedError):
            return Forked(ask(control, request, (descriptor, out, errors)))
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=out,
        stderr=errors,
        start_new_session=told is None,
        preexec_fn=None if told is None else dying_with_us(signal.Signals(told)),
    )


def ask(control: socket.socket, request: Request, standard: tuple[int, int, int]) -> Fork:
    """Has the warm process at the other end of `control` fork.

    Args:
        control: our end.
        request: what to start.
        standard: descriptors of its standard input, output and error.

    Raises:
        NotForkedError: with its reason, or without one, because it is gone.
    """
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with message(encoded(request)) as data, theirs, contextlib.suppress(OSError):
        socket.send_fds(control, [START], [data, *standard, theirs.fileno()])
    try:
        told, handles, _, _ = socket.recv_fds(mine, _MAX_ANSWER, 1)
    except OSError:
        told, handles = b"", []
    answer = json.loads(told) if told else {"refused": ""}
    if "pid" in answer:
        ended_by = int(signal.SIGTERM) if request.told is None else request.told
        return Fork(int(answer["pid"]), handles[0], mine, ended_by)
    mine.close()
    raise NotForkedError(answer["refused"])


@contextmanager
def message(data: bytes) -> Iterator[int]:
    """A descriptor from which `data` can be read, for a message of any size."""
    descriptor = os.memfd_create("holdfast", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        yield descriptor


@contextmanager
def nothing() -> Iterator[int]:
    """A descriptor from which nothing can be read."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _input(stdin: int | None) -> Iterator[int]:
    if stdin is not None:
        yield stdin
        return
    with nothing() as descriptor:
        yield descriptor
