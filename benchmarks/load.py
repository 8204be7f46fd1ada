"""Load on the machine, so that a benchmark sees what a busy computer does to it; the same for the same seed.

    python -m benchmarks.load --kind b --seconds 60
    python -m benchmarks.load --kind a -- make demo

Kind `a`: eight busy loops, in the caller's session. Kind `b`, as builds and tests in other terminals load a machine:
eight loops that start and stop at random every 0.1 to 3 s, a writer that syncs blocks of 64 MB, and a process that
imports torch again and again, in three sessions of their own (where its autogroups are on, Linux shares cores between
sessions, not between processes). All of it is gone at the end, and when the process that started it is killed.
"""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from benchmarks.load_workers import LOOPS
from benchmarks.table import ROOT
from holdfast.errors import RolloutError
from holdfast.processes import dying_with_us

GRACE_SECONDS = 20.0
"""How long a command may take to end after SIGTERM."""
TIMED_OUT = 124
"""Exit code of a command that ran past its seconds, as of timeout(1)."""
_SAMPLE_SECONDS = 0.5


class Kind(StrEnum):
    """What loads the machine."""

    A = "a"
    """Eight busy loops."""
    B = "b"
    """Bursts, a writer that syncs, imports."""


WORKERS: dict[Kind, tuple[str, ...]] = {
    Kind.A: ("spin",) * LOOPS,
    Kind.B: ("bursts", "write", "import_torch"),
}
WORDS = {Kind.A: "eight busy loops", Kind.B: "bursts, synced writes and imports"}


@dataclass
class Load:
    """What runs."""

    workers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    runnable: list[int] = field(default_factory=list)
    """How many processes of the whole machine wanted a core, twice a second."""

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [worker.pid for worker in self.workers]

    @property
    def seen(self) -> float:
        """Mean of `runnable`, this process's own reading not counted; 0 before the first sample."""
        return round(mean(self.runnable) - 1, 2) if self.runnable else 0.0


@contextmanager
def watched() -> Iterator[Load]:
    """No load of ours; counts the processes that want a core, as `loaded` does."""
    load, ended = Load(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(load, ended), daemon=True)
    sampler.start()
    try:
        yield load
    finally:
        ended.set()
        sampler.join()


@contextmanager
def loaded(kind: Kind, seed: int = 0) -> Iterator[Load]:
    """Loads the machine until the end of the block. Enter it from the main thread.

    Raises:
        RolloutError: a worker ended by itself, so that the load was not the one that was asked for.
    """
    with watched() as load:
        try:
            for number, name in enumerate(WORKERS[kind]):
                load.workers.append(_start(name, 100 * seed + number, apart=kind is Kind.B))
            yield load
            _require_all(load)
        finally:
            _end(load)


def _start(name: str, seed: int, *, apart: bool) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load_workers", name, str(seed)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=apart,
        preexec_fn=dying_with_us(signal.SIGKILL),
    )


def _require_all(load: Load) -> None:
    ended, started = [worker.args for worker in load.workers if worker.poll() is not None], len(load.workers)
    if ended:
        raise RolloutError(f"load: expected {started} processes at work, found {len(ended)} ended: {ended[0]!r}")


def _end(load: Load) -> None:
    for worker in load.workers:
        worker.kill()
    for worker in load.workers:
        worker.wait()


def _sample(load: Load, ended: threading.Event) -> None:
    while not ended.wait(_SAMPLE_SECONDS):
        fields = Path("/proc/loadavg").read_text(encoding="ascii").split()
        load.runnable.append(int(fields[3].partition("/")[0]))


def under(kind: Kind, seed: int, seconds: float | None, command: Sequence[str]) -> int:
    """The exit code of `command` under load; 124 when it ran past `seconds`; 128 + N when signal N ended it."""
    with loaded(kind, seed):
        process = subprocess.Popen(command, preexec_fn=dying_with_us(signal.SIGTERM))
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            sys.stderr.write(f"load: {command[0]} ran for more than {seconds:g} s and was ended\n")
            code = TIMED_OUT
        finally:
            process.kill()
            process.wait()
    return code if code >= 0 else 128 - code


def main(
    kind: Annotated[Kind, typer.Option(help="a: eight busy loops; b: bursts, synced writes, imports.")],
    seconds: Annotated[float | None, typer.Option(help="How long; with a command: at most.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bursts.")] = 0,
    command: Annotated[list[str] | None, typer.Argument(help="After --: runs under the load.")] = None,
) -> None:
    """Loads this machine while a command runs, or for a time; the exit code is the command's."""
    if command:
        raise typer.Exit(under(kind, seed, seconds, command))
    if seconds is None:
        raise typer.BadParameter("expected --seconds or a command after --, found neither")
    with loaded(kind, seed) as load:
        time.sleep(seconds)
    sys.stderr.write(f"load {kind}: {load.seen:g} processes wanted a core on average\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    typer.run(main)
