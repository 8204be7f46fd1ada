"""The runner's side of `holdfast.warm`: one warm process per interpreter, and steps that are forks of it.

A step is the same to the runner however it began (`StepProcess`): a process that leads its own group, a
descriptor that can be read once it has ended, and an exit code.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from holdfast.processes import dying_with_us
from holdfast.progress import say
from holdfast.steps import Step, find
from holdfast.warm.children import NotForkedError, ask, lent, message, nothing
from holdfast.warm.request import PREPARE, Request, limits
from holdfast_pipelines.process import StepProcess, fresh

HANDED_ON = "HOLDFAST_WARM"
"""How a process that we start finds our warm processes: JSON, interpreter -> inherited descriptor."""
_LAST_WORDS = 2000


@dataclass
class _Server:
    control: socket.socket
    process: "subprocess.Popen[bytes] | None" = None
    """None: another process of this run started it."""
    words: IO[bytes] | None = None

    def last_words(self) -> str:
        if self.words is None:
            return ""
        self.words.seek(0, os.SEEK_END)
        self.words.seek(max(0, self.words.tell() - _LAST_WORDS))
        return self.words.read().decode(errors="replace").strip().rpartition("\n")[2]


@dataclass
class Servers:
    """Warm processes by interpreter; each is started when it is first wanted. Use from the main thread."""

    _servers: dict[Path, _Server] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def prepare(self, python: Path, env: Mapping[str, str], steps: Iterable[Step]) -> None:
        """Lets the warm process of `python` import, in its spare time, what these steps need."""
        libraries = [name for step in steps for name in (*step.libraries, *step.libraries_if_changed)]
        with message(json.dumps(libraries).encode()) as request, contextlib.suppress(OSError):
            socket.send_fds(self._server(python, env).control, [PREPARE], [request])

    def start(self, command: Sequence[str], env: Mapping[str, str], output: int) -> StepProcess:
        """`python -m MODULE STEP ...` as a fork; any other command, or where a fork is not safe, as a new process."""
        python, module, words = Path(command[0]), command[1:3], tuple(command[3:])
        if module[:1] != ["-m"] or not words:
            return fresh(command, env, output)
        request = _request(module[1], words, env)
        server = self._server(python, env)
        try:
            with nothing() as stdin:
                return ask(server.control, request, (stdin, output, output))
        except NotForkedError as refusal:
            why = str(refusal) or f"its warm process died: {server.last_words()}"
            self._say_once(f"{words[0]}: runs as a fresh process: {why}")
            return fresh(command, env, output)

    def handed_on(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """Variables and descriptors with which a process that we start shares these warm processes."""
        numbers = {str(python): server.control.fileno() for python, server in self._servers.items()}
        return {HANDED_ON: json.dumps(numbers)}, tuple(numbers.values())

    @contextmanager
    def lent(self, python: Path, env: Mapping[str, str]) -> Iterator[None]:
        """Inside, what this process starts by `holdfast.warm.children` are forks of the warm process of `python`."""
        with lent(self._server(python, env).control, env):
            yield

    def close(self) -> None:
        """Ends those that were started here."""
        for server in self._servers.values():
            server.control.close()
            if server.process is not None:
                server.process.kill()
                server.process.wait()
            if server.words is not None:
                server.words.close()
        self._servers.clear()

    def _server(self, python: Path, env: Mapping[str, str]) -> _Server:
        if python not in self._servers:
            self._servers[python] = _started(python, env)
        return self._servers[python]

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            say(line)


def _request(module: str, words: tuple[str, ...], env: Mapping[str, str]) -> Request:
    request = Request(module, words, dict(env), str(Path.cwd()), limits())
    step = find(words[0])
    if step is None:
        return request
    return replace(request, libraries=step.libraries, prepared=step.libraries_if_changed, forks=step.starts_processes)


@contextmanager
def servers(*, isolated: bool = False) -> Iterator[Servers | None]:
    """Warm processes for what happens inside; None when every step is to be a fresh process."""
    if isolated:
        yield None
        return
    found = Servers(_inherited())
    try:
        yield found
    finally:
        found.close()


def _inherited() -> dict[Path, _Server]:
    """What the process that started this one handed on."""
    numbers: dict[str, int] = json.loads(os.environ.pop(HANDED_ON, "{}"))
    found = {Path(python): _Server(socket.socket(fileno=number)) for python, number in numbers.items()}
    for server in found.values():
        server.control.set_inheritable(False)
    return found


def _started(python: Path, env: Mapping[str, str]) -> _Server:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = tempfile.TemporaryFile()  # noqa: SIM115  # `Servers.close` closes it
    with theirs:
        process = subprocess.Popen(
            [str(python), "-m", "holdfast.warm", str(theirs.fileno())],
            env={name: value for name, value in env.items() if name != "PYTHONPATH"},
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            preexec_fn=dying_with_us(signal.SIGKILL),
        )
    return _Server(ours, process, words)
