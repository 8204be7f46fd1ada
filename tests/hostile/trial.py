"""One hostile file, given to the command that a user would use: in a fork, measured."""

import gc
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CANARY = "it-ran"
"""What a payload makes, in the folder of its file, when its code runs."""
SECONDS, MEGABYTES = 5.0, 1000.0
"""What no file may take; the memory is that of the whole process, libraries included."""
_KILLED_AFTER = 30.0
_CODES = (0, 1, 2, 3, 4)
_TRACEBACK = "Traceback (most recent call last)"
_ROOM = 4 * 2**30
"""Address space on top of what the process has: so that a file that takes all of it ends its own process only."""
_LIBRARIES = (
    "holdfast.cli.app", "holdfast.data.snapshot.inspection.inspect", "holdfast.data.snapshot.read",
    "holdfast.attestation.verify", "holdfast.model.files.judge", "holdfast.model.networks", "holdfast.registry",
    "holdfast.serving.predictor.__main__", "holdfast_pipelines.report", "pandas", "pyarrow.csv", "pyarrow.parquet",
)  # fmt: skip


def preload() -> None:
    """Imports what the commands import, so that a fork begins where a command begins to read."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    gc.freeze()


@dataclass(frozen=True)
class Trial:
    """What came of one file."""

    name: str
    outcome: Literal["refused", "accepted"]
    expected: Literal["refused", "accepted"]
    code: int
    """Exit code; minus the signal that ended it."""
    seconds: float
    megabytes: float
    ran: bool
    """Whether code of the file ran."""
    traceback: bool
    """A traceback, an exit code that is none of ours, or a signal."""
    lines: int
    """Of the refusal."""
    output: str
    """Its end."""

    @property
    def bad(self) -> bool:
        """Whether anything is as it must not be."""
        slow, large = self.seconds > SECONDS, self.megabytes > MEGABYTES
        return self.ran or self.traceback or slow or large or self.outcome != self.expected


def measure(name: str, expected: Literal["refused", "accepted"], folder: Path, work: Callable[[], int]) -> Trial:
    """Runs `work`, which returns an exit code, in a fork whose working folder is `folder`."""
    log = folder.with_name(f"{folder.name}.log")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(folder, log, work)
    status, usage = _ended(child, began + _KILLED_AFTER)
    seconds = time.monotonic() - began
    code = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    return Trial(
        name=name,
        outcome="accepted" if code == 0 else "refused",
        expected=expected,
        code=code,
        seconds=round(seconds, 2),
        megabytes=round(usage.ru_maxrss / 1024, 1),
        ran=any(folder.rglob(f"{CANARY}*")) or folder.with_name(CANARY).exists(),
        traceback=_TRACEBACK in text or code not in _CODES,
        lines=sum(line.startswith(("holdfast:", "refused")) for line in text.splitlines()),
        output=text[-400:],
    )


def _ended(child: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    while time.monotonic() < deadline:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage


def _run(folder: Path, log: Path, work: Callable[[], int]) -> None:
    """In the fork."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w") for descriptor in (1, 2))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = work()
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def command(*words: str) -> Callable[[], int]:
    """`holdfast WORDS`, as a process of its own would run it."""

    def run() -> int:
        from holdfast.cli.app import main

        sys.argv = ["holdfast", *words]
        try:
            main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return 0

    return run


def function(work: Callable[[], object]) -> Callable[[], int]:
    """A call of Holdfast's own interface: an expected error is one line and exit code 1."""

    def run() -> int:
        from holdfast.errors import HoldfastError

        try:
            work()
        except HoldfastError as error:
            sys.stderr.write(f"holdfast: {error}\n")
            return 1
        return 0

    return run
