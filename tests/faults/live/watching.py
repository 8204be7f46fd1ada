"""What a controller costs while it watches: `holdfast rollout start`, as a user runs it, in a long step."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import RolloutError
from holdfast.processes import dying_with_us
from holdfast.serving.rollout.engine.journal import state_folder
from tests.faults.live.bundles import NAME, Bundles

CONFIG = {"shadow_requests": 50, "steps": [50, 100], "step_requests": 10**7, "max_step_seconds": 3600, "rate": 100}
WAIT_SECONDS = 180.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Watched:
    """Of the controller's process alone; the servers, Envoy and the traffic are others."""

    peak_mb: float
    share: float
    """CPU-seconds per second."""
    seconds: float


def watch(bundles: Bundles, folder: Path, seconds: float) -> Watched:
    """Starts a rollout, lets it come to its first step, measures, and ends it.

    Raises:
        RolloutError: it did not come to its first step.
    """
    folder.mkdir(parents=True)
    out = folder / "rollout"
    command = [sys.executable, "-m", "holdfast", "rollout", "start", f"--name={NAME}", "--version=2", f"--out={out}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--tracking={bundles.tracking}", f"--config={json.dumps(CONFIG)}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=dying_with_us(signal.SIGTERM),
        )
    try:
        _wait(process, state_folder(out) / "journal.jsonl", folder / "log")
        began, before = time.monotonic(), _cpu_seconds(process.pid)
        time.sleep(seconds)
        passed, spent = time.monotonic() - began, _cpu_seconds(process.pid) - before
        return Watched(_peak_mb(process.pid), spent / passed, passed)
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: "subprocess.Popen[bytes]", journal: Path, log: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (journal.exists() and b'"state": "Canary 50 %"' in journal.read_bytes()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RolloutError(f"expected a rollout in its first step, found {log.read_text()[-500:]}")
        time.sleep(0.05)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
