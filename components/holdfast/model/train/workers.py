"""Several processes that train together on one machine, each started as torchrun would start it.

torchrun itself does this on a cluster (job.py). Here it would turn the one line of a failure into a page.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from holdfast import pod_cache
from holdfast.artifacts.folder import Ref
from holdfast.compute import Compute
from holdfast.errors import HoldfastError, ModelError, WorkloadError
from holdfast.model.train.checkpoint import StoppedError
from holdfast.processes import LOOPBACK, dying_with_us, reap, reserved_ports, stopped_by, tail
from holdfast.workload.schema import TrainConfig

COUNT = "WORLD_SIZE"
"""The environment variable of a process that trains with others: how many they are."""
GRACE_SECONDS = 20.0
"""How long the others have to end when one has."""
_POLL_SECONDS = 0.05


def check_count(workers: int) -> None:
    """Refuses a process that trains with more or fewer others than the workload asks for.

    Raises:
        WorkloadError: it does.
    """
    found = os.environ.get(COUNT, "1")
    if found != str(workers):
        raise WorkloadError(f"train.workers {workers}: expected as many processes, found {COUNT}={found[:20]}")


def is_worker() -> bool:
    """Whether this process was started to train with others."""
    return COUNT in os.environ


@dataclass(frozen=True)
class TrainInputs:
    """What a training reads, by role."""

    snapshot: Ref
    scan: Ref | None = None
    baseline: Ref | None = None


def words(
    inputs: TrainInputs, out: Path, *, config: TrainConfig, settings: Compute, checkpoint: Path | None
) -> list[str]:
    """The words of `holdfast train` after its name."""
    refs = {name: one for name, one in vars(inputs).items() if one is not None}
    given = {name: str(one.folder) + (f"@{one.digest}" if one.digest else "") for name, one in refs.items()}
    given |= {"out": str(out), "config": config.model_dump_json(by_alias=True)}
    given |= {"seed": str(settings.seed), "device": settings.device, "threads": str(settings.threads)}
    given |= {} if checkpoint is None else {"checkpoint": str(checkpoint)}
    return [f"--{name}={value}" for name, value in given.items()]


@dataclass(frozen=True)
class _Worker:
    rank: int
    process: "subprocess.Popen[bytes]"
    log: Path | None
    """What it wrote; None: it writes to this process's standard error."""


def train_together(given: Sequence[str], count: int) -> None:
    """Runs `holdfast train` with these words in `count` processes; returns when all have ended well.

    Raises:
        StoppedError: SIGTERM came; the state is in the checkpoint folder, if there is one.
        ModelError: a process failed or was ended; the others were ended then.
    """
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-train-") as folder,
        stopped_by(signal.SIGTERM) as stop,
        _started(given, count, Path(folder)) as workers,
    ):
        failed = _first_to_fail(workers, stop)
        if failed is not None:
            raise _failure(failed, count, stopped=stop.is_set())


@contextmanager
def _started(given: Sequence[str], count: int, folder: Path) -> Iterator[list[_Worker]]:
    """The processes; on the way out all have ended."""
    workers: list[_Worker] = []
    with reserved_ports(1) as (port,):
        try:
            for rank in range(count):
                workers.append(_start(given, rank, count, port, folder))
            yield workers
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                reap(worker.process, GRACE_SECONDS)


def _start(given: Sequence[str], rank: int, count: int, port: int, folder: Path) -> _Worker:
    """Only the first one is heard: the others write the same lines, or why they failed."""
    # What is reused is this process's matter: its workers all train, or none does.
    env = {name: value for name, value in os.environ.items() if name != pod_cache.FOLDER}
    env |= {COUNT: str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    env |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(port), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "holdfast", "train", *given]
    if not rank:
        return _Worker(rank, subprocess.Popen(command, env=env, preexec_fn=dying_with_us()), None)
    log = folder / f"{rank}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=env, stdout=stream, stderr=stream, preexec_fn=dying_with_us())
    return _Worker(rank, process, log)


def _first_to_fail(workers: Sequence[_Worker], stop: Event) -> _Worker | None:
    """Waits for the end of all, or of the first that ends badly; hands a request to stop on."""
    told = False
    while any(worker.process.poll() is None for worker in workers):
        failed = _failed(workers)
        if failed is not None:
            return failed
        if stop.is_set() and not told:
            told = True
            for worker in workers:
                worker.process.terminate()
        time.sleep(_POLL_SECONDS)
    return _failed(workers)


def _failed(workers: Sequence[_Worker]) -> _Worker | None:
    """Of those that ended badly, one that was killed before one that lost it."""
    bad = [worker for worker in workers if worker.process.poll() not in (None, 0)]
    return min(bad, key=lambda worker: int(worker.process.returncode), default=None)


def _failure(worker: _Worker, count: int, *, stopped: bool) -> HoldfastError:
    code, which = worker.process.returncode, f"train: process {worker.rank + 1} of {count}"
    if stopped and code in (StoppedError.exit_code, -signal.SIGTERM):
        return StoppedError("train: stopped by SIGTERM with all its processes; start it again to go on")
    if code < 0:
        return ModelError(
            f"{which} was ended by {signal.Signals(-code).name}; start it again to go on from the last checkpoint"
        )
    lines = tail(worker.log).splitlines() if worker.log else []
    reason = lines[-1].removeprefix("holdfast: ") if lines else "the lines above have the reason"
    return ModelError(f"{which} failed with exit code {code}: {reason}")
