"""Wall and CPU-seconds of a command and of every process that comes of it, detached servers too.

`python -m benchmarks.process_tree RESULT FOLDER LEFT COMMAND...` runs COMMAND as the child of a process that does
nothing else and that is a subreaper (prctl(2)): a process that loses its parent becomes its child. So each process of
the tree is waited for, by its parent or here, and RUSAGE_CHILDREN (getrusage(2)) is the sum over all. The one exception
is Linux's: children of a process that ignores SIGCHLD are waited for by none and counted nowhere.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast.errors import RunError
from holdfast.processes import dying_with_us

LEFT_SECONDS = 30.0
"""How long what outlives the command may take to end before it counts as left behind."""
_POLL_SECONDS = 0.02
_PR_SET_CHILD_SUBREAPER = 36
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Spent:
    """What a command cost."""

    wall: float
    """Seconds until the command itself ended."""
    cpu: float
    """User and system seconds of the whole tree."""
    code: int
    """Exit code of the command; negative: by that signal."""
    left: tuple[str, ...] = ()
    """Command lines of the processes that still ran a while after it; they were killed."""
    peak: int = 0
    """Bytes of the largest resident set that one process of the tree had."""


def spent(
    command: Sequence[str], *, cwd: Path, log: Path, seconds: float | None = None, left: float = LEFT_SECONDS
) -> Spent:
    """Runs `command` in `cwd`, its output in `log`, and gives what it cost.

    Args:
        command: the program (an absolute path) and its arguments.
        cwd: its working folder.
        log: takes its output and what the measuring process itself has to report.
        seconds: after which all of it is killed.
        left: seconds that what outlives the command may take to end.

    Raises:
        RunError: it ran for more than `seconds`, or the measuring process itself failed.
    """
    with tempfile.TemporaryDirectory(prefix="spent-") as folder:
        result = Path(folder) / "spent.json"
        code = _run([str(result), str(cwd), str(left), *command], log, seconds)
        if code is None:
            raise RunError(f"{command[0]}: expected an end within {seconds} s, found none; see {log}")
        if code or not result.exists():
            raise RunError(f"{command[0]}: expected it to be measured, found exit code {code}; see {log}")
        found = json.loads(result.read_bytes())
    return Spent(**{**found, "left": tuple(found["left"])})


def _run(words: Sequence[str], log: Path, seconds: float | None) -> int | None:
    """The exit code of the measuring process; None when time ran out, and then nothing of it is left."""
    with log.open("wb") as stream:
        measuring = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.process_tree", *words],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=dying_with_us(signal.SIGTERM),
        )
    try:
        return measuring.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        measuring.terminate()
        measuring.wait()


def measure(command: Sequence[str], cwd: Path, left: float) -> Spent:
    """Runs `command`; call it once, in a process that has no other children."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd, preexec_fn=dying_with_us(signal.SIGTERM))
    code = _reap_until(process.pid)
    wall = time.monotonic() - start
    remaining = _reap_rest(time.monotonic() + left)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(round(wall, 3), round(usage.ru_utime + usage.ru_stime, 3), code, remaining, usage.ru_maxrss * 1024)


def _reap_until(pid: int) -> int:
    """Waits for every child that ends until `pid` is among them; its exit code."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _reap_rest(deadline: float) -> tuple[str, ...]:
    """Waits for those that are left; kills whom the deadline finds, and gives their command lines."""
    found: tuple[str, ...] = ()
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if not ended and time.monotonic() > deadline:
                found += _kill_children()
            time.sleep(0 if ended else _POLL_SECONDS)
    return found


def _kill_children() -> tuple[str, ...]:
    """Of this process; their own children become ours and are next."""
    lines = []
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split():
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            os.kill(int(pid), signal.SIGKILL)
            lines += [line] if line else []
    return tuple(lines)


def _main(result: Path, cwd: Path, left: float, command: Sequence[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        found = measure(command, cwd, left)
    finally:
        _reap_rest(0.0)
    result.write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
