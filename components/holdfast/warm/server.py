"""One process per environment that has imported its libraries once; every step is a fork of it.

`python -m holdfast.warm FD` serves the runner at the other end of the inherited socket FD: there is no path and no port
by which another could reach it. A message is one byte and, as SCM_RIGHTS, descriptors: the request (JSON in a memory
file), standard input, output and error of the step, and a socket for the answer. What `python -m MODULE ARGUMENTS`
would find in a process of its own, the fork finds too: session, working folder, environment, limits, descriptors. It is
told when this process is gone, and this process is killed when the runner is gone.

A fork copies the calling thread alone and every lock as it is. Therefore no fork is made while this process has more
than one thread: the answer is a refusal, and the runner starts a fresh process instead.

A step that starts processes of its own (a rollout, its deployment) gets a warm process of its own for them: a fork that
is made before the step begins, and serves it as this one serves the runner (`holdfast.warm.children`).
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from holdfast.processes import die_with_parent, signal_group
from holdfast.warm import children, ending
from holdfast.warm.libraries import load, threads, write_bytecode
from holdfast.warm.request import MAX_REQUEST, PREPARE, REAP, START, Request, decoded

READ_AT_START = (
    "PYTHON", "LD_", "LC_", "LANG", "OMP_", "GOMP_", "MKL_", "OPENBLAS_", "JE_", "TF_", "XLA_", "CUDA_", "TORCH",
    "PYTORCH_", "ARROW_", "MLFLOW_",
)  # fmt: skip
"""Variables that begin so are read by the interpreter or by a library as it is imported: too late to change them."""


@dataclass(frozen=True)
class _Step:
    """A fork that was not waited for yet."""

    pid: int
    handle: int
    answer: socket.socket
    told: int | None
    """The signal that it gets when the runner is gone; None: it lives on."""


class Server:
    """Imports and forks until the runner closes its end of `control`."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.steps: dict[int, _Step] = {}
        self._waiting: list[str] = []
        self._loaded: set[str] = set()
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self) -> Request | None:
        """Returns None when the runner is gone; in a fork, the request that this process is to carry out."""
        while True:
            for ready, event in self._poll.poll(0 if self._waiting else None):
                if ready != self.control.fileno():
                    self._attend(ready, event)
                    continue
                message, descriptors = _receive(self.control)
                if not message:
                    return None
                mine = self._take(message, descriptors)
                if mine is not None:
                    return mine
            if self._waiting:
                self._load(self._waiting.pop(0))

    def _take(self, message: bytes, descriptors: list[int]) -> Request | None:
        if message == PREPARE and len(descriptors) == 1:
            self._waiting += json.loads(_read(descriptors[0]))
        elif message == START and len(descriptors) == 5:
            given, *standard, answer = descriptors
            return self._start(decoded(_read(given)), standard, socket.socket(fileno=answer))
        else:
            for descriptor in descriptors:
                os.close(descriptor)
        return None

    def _load(self, name: str) -> None:
        if name not in self._loaded:
            self._loaded.add(name)
            gc.disable()  # modules live for ever: looking for garbage among them is a tenth of the import's cost
            load([name])
            gc.enable()

    def _start(self, request: Request, standard: list[int], answer: socket.socket) -> Request | None:
        for name in (*request.libraries, *(one for one in request.prepared if one in self._waiting)):
            self._load(name)
        refused = _refusal(request)
        if refused:
            answer.send(json.dumps({"refused": refused}).encode())
            answer.close()
            _close(standard)
            return None
        gc.freeze()
        parent, gate = os.getpid(), socket.socketpair()
        pid = os.fork()
        if pid == 0:
            gate[0].close()
            _lead_session(parent, request.told)
            _wait_at(gate[1])
            self._close()
            answer.close()
            _become(request, standard)
            return request
        gate[1].close()
        _close(standard)
        gate[0].recv(1)  # until it leads its own session, or is gone
        self._keep(_Step(pid, os.pidfd_open(pid), answer, request.told))
        with gate[0], contextlib.suppress(OSError):
            gate[0].send(b"!")
        return None

    def _close(self) -> None:
        """In a fork: what belongs to the server and to other steps."""
        self.control.close()
        for step in set(self.steps.values()):
            step.answer.close()
            os.close(step.handle)

    def _keep(self, step: _Step) -> None:
        told = json.dumps({"pid": step.pid}).encode()
        with contextlib.suppress(OSError):  # the runner is gone: its end is hung up, which `serve` sees next
            socket.send_fds(step.answer, [told], [step.handle])
        self.steps[step.answer.fileno()] = self.steps[step.handle] = step
        self._poll.register(step.answer, select.POLLIN)

    def _attend(self, ready: int, event: int) -> None:
        """A runner wants to know how its step ended; or it is gone, and its step is told and waited for."""
        step = self.steps.get(ready)
        if step is None:
            return
        if ready == step.handle:
            self._reap(step)
        elif step.answer.recv(1) == REAP:
            status = self._reap(step)
            with contextlib.suppress(OSError):
                step.answer.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
        else:
            self._poll.unregister(step.answer)
            if step.told is not None:
                signal.pidfd_send_signal(step.handle, step.told)
            self._poll.register(step.handle, select.POLLIN)

    def _reap(self, step: _Step) -> int:
        """What is left of its group is ended before its number can be given to another."""
        signal_group(step.pid, signal.SIGKILL)
        _, status = os.waitpid(step.pid, 0)
        for number in (step.handle, step.answer.fileno()):
            self.steps.pop(number, None)
            with contextlib.suppress(KeyError):
                self._poll.unregister(number)
        os.close(step.handle)
        return status


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    message, descriptors, _, _ = socket.recv_fds(control, 1, 5)
    return message, list(descriptors)


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        stream.seek(0)
        return stream.read(MAX_REQUEST)


def _refusal(request: Request) -> str:
    """Why a fork would not be what a fresh process is; empty when it would."""
    found = threads()
    if len(found) != 1:
        return f"expected one thread before a fork, found {len(found)}: {', '.join(found)}"
    others = sorted(name for name in {*request.env, *_STARTED_WITH} if _matters(name, request.env))
    if others:
        return f"expected the environment that the libraries were imported in, found another {others[0]}"
    shadowing = _shadowing(request)
    return f"expected no module of your own in place of a library, found {shadowing}" if shadowing else ""


def _matters(name: str, env: Mapping[str, str]) -> bool:
    read_already = name.startswith(READ_AT_START) and name != "PYTHONPATH"
    return read_already and env.get(name) != _STARTED_WITH.get(name)


def _shadowing(request: Request) -> str | None:
    """A module in the step's own folders that would have been imported instead of one that is imported already."""
    for folder in _own_folders(request):
        found = {_module_name(path): path for path in Path(folder).glob("*") if path.suffix in ("", ".py", ".so")}
        for name in sorted(found.keys() & sys.modules.keys() - {"__main__"}):
            mine = getattr(sys.modules[name], "__file__", None)
            if mine is None or Path(folder) not in Path(mine).parents:
                return str(found[name])
    return None


def _module_name(path: Path) -> str:
    package = path.suffix == "" and (path / "__init__.py").is_file()
    return path.name.partition(".")[0] if package or path.suffix else ""


def _own_folders(request: Request) -> list[str]:
    """What `python -m` puts before everything else: the working folder, and PYTHONPATH."""
    given = request.env.get("PYTHONPATH", "")
    return [request.folder, *(entry for entry in given.split(os.pathsep) if entry)]


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _lead_session(parent: int, told: int | None) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if told is not None:
        _die_with(parent, told)


def _die_with(parent: int, told: int) -> None:
    die_with_parent(told)
    if os.getppid() != parent:  # it was gone before the arrangement stood
        os._exit(128 + told)


def _wait_at(gate: socket.socket) -> None:
    """Returns when the runner was told about this process: one that it does not know of must not begin."""
    with gate:
        gate.send(b"!")
        if not gate.recv(1):
            os._exit(128 + signal.SIGTERM)


def _become(request: Request, standard: list[int]) -> None:
    """In a fork: descriptors, folder, limits, environment, module path and words as a process of its own has them."""
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    _close(standard)
    os.chdir(request.folder)
    for number_of, pair in request.limits.items():
        resource.setrlimit(int(number_of), pair)
    _live_in(request.env)
    own = _own_folders(request)
    sys.path[: len(_OWN)] = own
    _OWN[:] = own
    sys.argv[:] = [request.module, *request.arguments]
    importlib.invalidate_caches()
    _reseed_numpy()


def _live_in(env: Mapping[str, str]) -> None:
    """The given environment and what the imports have set in theirs."""
    set_by_imports = {name: value for name, value in os.environ.items() if _STARTED_WITH.get(name) != value}
    os.environ.clear()
    os.environ.update({**env, **set_by_imports})
    time.tzset()


def _reseed_numpy() -> None:
    """numpy's global generator begins with fresh entropy, as in every process; Python's own does so by itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


_STARTED_WITH: dict[str, str] = {}
_OWN: list[str] = []
"""The entries of `sys.path` before those of the interpreter."""


def main(descriptor: int) -> None:
    """Serves; in a fork, runs the module as `python -m` does."""
    import runpy

    _STARTED_WITH.update(os.environ)
    os.set_inheritable(descriptor, False)
    mine = _serve(socket.socket(fileno=descriptor))
    with ending.quick():
        if mine is not None:
            runpy.run_module(mine.module, run_name="__main__", alter_sys=True)


def _serve(control: socket.socket) -> Request | None:
    """Serves; in a fork, gives it a warm process of its own where it starts others, and returns what it is to do."""
    while (mine := Server(control).serve()) is not None and mine.forks:
        end = _serving(os.getpid())
        if end is None:
            break
        control = end
    return mine


def _serving(step: int) -> socket.socket | None:
    """A warm process for what this one starts; in it, the end at which it serves."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() != 0:
        theirs.close()
        children.serve_from(ours)
        return None
    ours.close()
    _die_with(step, signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # these are for the step, which may start something as its last act
    _STARTED_WITH.clear()
    _STARTED_WITH.update(os.environ)
    return theirs


def run() -> NoReturn:
    """`python -m holdfast.warm`."""
    if sys.argv[1:] == ["bytecode"]:
        write_bytecode()
        sys.exit(0)
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: python -m holdfast.warm DESCRIPTOR|bytecode (for `holdfast run` and for make, not for people)")
    ending.arrange()
    sys.path.pop(0)  # the working folder of this process: each step has its own
    main(int(sys.argv[1]))
    sys.exit(0)
