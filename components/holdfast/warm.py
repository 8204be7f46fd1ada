"""One process per environment that has imported its libraries once; every step is a fork of it.

`python -m holdfast.warm FD` serves the runner at the other end of the inherited socket FD: there is no path and no port
by which another could reach it. A message is one byte and, as SCM_RIGHTS, descriptors: the request (JSON in a memory
file), the step's log and a socket for the answer. What `python -m MODULE ARGUMENTS` would find in a process of its own,
the fork finds too: session, working folder, environment, limits, log. It gets SIGTERM when this process is gone, and
this process is killed when the runner is gone.

A fork copies the calling thread alone and every lock as it is. Therefore no fork is made while this process has more
than one thread: the answer says so, and the runner starts a fresh process instead.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from holdfast.processes import die_with_parent

MAX_REQUEST = 2**23
"""Bytes of one request; arguments and environment of a process are at most a quarter of it on Linux."""
START, PREPARE, REAP = b"S", b"P", b"R"
CALM: dict[str, str] = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Without these, importing numpy, scipy and pyarrow starts threads. A step sets its own `--threads` in each library."""

READ_AT_START = (
    "PYTHON", "LD_", "LC_", "LANG", "OMP_", "GOMP_", "MKL_", "OPENBLAS_", "JE_", "TF_", "XLA_", "CUDA_", "TORCH",
    "PYTORCH_", "ARROW_", "MLFLOW_",
)  # fmt: skip
"""Variables that begin so are read by the interpreter or by a library as it is imported: too late to change them."""
_TABLES = ("holdfast.cli", "holdfast.tables", "pandas", "pyarrow.parquet")
_NETWORKS = ("holdfast.cli", "torch", "holdfast.model.networks", "holdfast.model.inputs", "scipy.special", "pandas")
_REGISTRY = ("holdfast.cli", "holdfast.registry:library")
LIBRARIES: dict[str, tuple[str, ...]] = {
    "snapshot": ("holdfast.data.snapshot.step", *_TABLES),
    "schema": ("holdfast.data.schema.step", *_TABLES, "holdfast.data.schema.contract:library"),
    "drift": ("holdfast.data.drift.step", *_TABLES, "holdfast.data.drift.evidently_report:library"),
    "baseline": ("holdfast.model.baseline.step", *_REGISTRY),
    "scan": ("holdfast.model.scan.step", *_NETWORKS, "holdfast.model.scan.learners:library"),
    "train": ("holdfast.model.train.step", *_NETWORKS, "holdfast.model.train.recipes"),
    "backdoor": ("holdfast.model.backdoor.step", *_NETWORKS),
    "attack": ("holdfast.model.attack.step", *_NETWORKS, "holdfast.model.attack.suite"),
    "certify": ("holdfast.model.certify.step", *_NETWORKS, "holdfast.model.certify.smoothing"),
    "gate": ("holdfast_gates.step", "holdfast.cli", "scipy.special"),
    "register": ("holdfast.model.register.step", *_REGISTRY, *_NETWORKS),
    "rollout": ("holdfast.serving.rollout.step", "holdfast.cli"),
}
"""Step -> what it imports, as MODULE or as MODULE:FUNCTION that imports. What is missing here a step imports itself."""

OTHERS = (
    "holdfast_pipelines.demo", "holdfast_pipelines.report", "holdfast_pipelines.retrain", "holdfast_pipelines.rollout",
    "kfp.local", "kfp.local.orchestrator.enhanced_dag_orchestrator", "sklearn.datasets",
    "holdfast.model.attack.art:load",
    "holdfast.serving.rollout.site.site", "holdfast.serving.predictor.runtime", "mlserver.cli.serve", "mlserver.server",
    "holdfast.serving.rollout.replay.traffic", "uvloop", "aiohttp",
)  # fmt: skip
"""What a run imports outside its steps, or only when it is asked to."""


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
    libraries: tuple[str, ...]
    """What to import first."""


@dataclass(frozen=True)
class _Step:
    """A fork that was not waited for yet."""

    pid: int
    handle: int
    answer: socket.socket


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
    words, libraries = given.pop("arguments"), given.pop("libraries")
    return Request(**given, arguments=tuple(words), limits=limits, libraries=tuple(libraries))


def limits() -> dict[str, tuple[int, int]]:
    """The limits of this process, as `Request.limits`."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    numbers = sorted({int(getattr(resource, name)) for name in names})
    return {str(number): resource.getrlimit(number) for number in numbers}


def threads() -> tuple[str, ...]:
    """The names of the threads of this process, those that no Python code knows of included."""
    return tuple(path.read_text().strip() for path in sorted(Path("/proc/self/task").glob("*/comm")))


def load(libraries: Sequence[str]) -> None:
    """Imports each MODULE, or calls each MODULE:FUNCTION; one that is not installed here is left out."""
    for name in libraries:
        module, _, function = name.partition(":")
        with contextlib.suppress(ImportError):
            found = importlib.import_module(module)
            if function:
                getattr(found, function)()


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
        elif message == START and len(descriptors) == 3:
            given, log, answer = descriptors
            return self._start(decoded(_read(given)), log, socket.socket(fileno=answer))
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

    def _start(self, request: Request, log: int, answer: socket.socket) -> Request | None:
        for name in request.libraries:
            self._load(name)
        refused = _refusal(request)
        if refused:
            answer.send(json.dumps({"refused": refused}).encode())
            answer.close()
            os.close(log)
            return None
        gc.freeze()
        parent, gate = os.getpid(), socket.socketpair()
        pid = os.fork()
        if pid == 0:
            gate[0].close()
            _lead_session(parent)
            _wait_at(gate[1])
            self._close()
            answer.close()
            _become(request, log)
            return request
        gate[1].close()
        os.close(log)
        gate[0].recv(1)  # until it leads its own session, or is gone
        self._keep(_Step(pid, os.pidfd_open(pid), answer))
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
            signal.pidfd_send_signal(step.handle, signal.SIGTERM)
            self._poll.register(step.handle, select.POLLIN)

    def _reap(self, step: _Step) -> int:
        """What is left of its group is ended before its number can be given to another."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(step.pid, signal.SIGKILL)
        _, status = os.waitpid(step.pid, 0)
        for number in (step.handle, step.answer.fileno()):
            self.steps.pop(number, None)
            with contextlib.suppress(KeyError):
                self._poll.unregister(number)
        os.close(step.handle)
        return status


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
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


def _lead_session(parent: int) -> None:
    os.setsid()
    die_with_parent()
    if os.getppid() != parent:  # it was gone before the arrangement stood
        os._exit(128 + signal.SIGTERM)


def _wait_at(gate: socket.socket) -> None:
    """Returns when the runner was told about this process: one that it does not know of must not begin."""
    with gate:
        gate.send(b"!")
        if not gate.recv(1):
            os._exit(128 + signal.SIGTERM)


def _become(request: Request, log: int) -> None:
    """In a fork: descriptors, folder, limits, environment, module path and words as a process of its own has them."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, log, log)):
        os.dup2(descriptor, number)
    os.close(nothing)
    os.close(log)
    os.chdir(request.folder)
    for number_of, pair in request.limits.items():
        resource.setrlimit(int(number_of), pair)
    _live_in(request.env)
    sys.path[:0] = _own_folders(request)
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


def main(descriptor: int) -> None:
    """Serves; in a fork, runs the module as `python -m` does."""
    import runpy

    _STARTED_WITH.update(os.environ)
    os.set_inheritable(descriptor, False)
    mine = Server(socket.socket(fileno=descriptor)).serve()
    if mine is not None:
        runpy.run_module(mine.module, run_name="__main__", alter_sys=True)


def write_bytecode() -> None:
    """Imports everything once, so that its bytecode is there: installing with uv leaves none, and many steps are short.

    As pip does, whatever PYTHONDONTWRITEBYTECODE says of files that change.
    """
    sys.dont_write_bytecode = False
    os.environ.update(CALM)
    load([name for libraries in LIBRARIES.values() for name in libraries])
    load(OTHERS)


def _run() -> NoReturn:
    if sys.argv[1:] == ["bytecode"]:
        write_bytecode()
        sys.exit(0)
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: python -m holdfast.warm DESCRIPTOR|bytecode (for `holdfast run` and for make, not for people)")
    sys.path.pop(0)  # the working folder of this process: each step has its own
    main(int(sys.argv[1]))
    sys.exit(0)


if __name__ == "__main__":
    _run()
