"""One live scene: a deployment with Envoy and two servers, clients outside of it, and drivers that come and go.

The clients are `holdfast replay` processes that are never killed; every answer is counted. Everything listens on
loopback and is gone at the end, which is checked.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import Ref
from holdfast.errors import RolloutError
from holdfast.processes import dying_with_us, runs
from holdfast.serving.predictor.settings import Served
from holdfast.serving.rollout.contract.counters import Reading
from holdfast.serving.rollout.local import launch
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.serving.rollout.traffic.tally import Tally, read_tally
from holdfast.workload.schema import RolloutPlan

WAIT_SECONDS = 90.0
GONE_SECONDS = 5.0
"""How long the kernel may need to end the servers of a deployment that was killed."""
LAST = 10**6
"""The fence of whoever ends a deployment."""


SETTLING = 8
"""Moments of 0.4 s within which the candidate is left alone: an attempt under way takes 2 s at most."""


@dataclass(frozen=True)
class Kind:
    """What a deployment serves, and how much is sent to it."""

    stable: Served
    candidate: Served
    rows: Path
    fast: bool = True
    """Upstreams without a model."""
    rate: float = 1500.0
    clients: int = 16
    ttl: float = 3.0
    linger: float = 30.0
    config: RolloutPlan = RolloutPlan(shadow_requests=400, steps=(10, 50, 100), step_requests=400)

    @property
    def spec(self) -> launch.Spec:
        """What is deployed."""
        return launch.Spec(self.stable, self.candidate, self.config.latency_limit_ms, self.ttl, self.linger)


def fast(rows: Path, fault: str | None = None, **more: Any) -> Kind:
    """Two servers without a model; `fault` is KIND@N of `tests.faults.live.upstream`."""
    nothing = Ref(Path("/nothing"))
    return Kind(Served("digits", 1, nothing, nothing), Served("digits", 2, nothing, nothing, fault), rows, **more)


@dataclass
class Scene:
    """What runs."""

    folder: Path
    kind: Kind
    deployment: launch.Running
    replay: "subprocess.Popen[bytes]"
    drivers: "list[subprocess.Popen[str]]" = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What did not hold."""

    def drive(self, state: Path | None = None) -> "subprocess.Popen[str]":
        """Starts a driver."""
        command = [
            sys.executable,
            "-m",
            "tests.faults.live.driver",
            str(state or self.folder),
            str(self.deployment.socket),
        ]
        process = subprocess.Popen(
            [*command, self.kind.config.model_dump_json()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=dying_with_us(signal.SIGKILL),
        )
        self.drivers.append(process)
        return process

    def end_of(self, driver: "subprocess.Popen[str]", seconds: float = WAIT_SECONDS) -> Mapping[str, Any]:
        """What a driver came to; without `state` when it gave up."""
        try:
            out, said = driver.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            driver.kill()
            out, said = driver.communicate()
            self.wrong.append(f"stuck: a driver did not end within {seconds:g} s")
        return json.loads(out) if out.strip() else {"error": said.strip(), "code": driver.returncode}

    def acts(self, what: str | None = None) -> list[Mapping[str, Any]]:
        """What drivers noted."""
        path = self.folder / "acts.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [act for act in found if what in (None, act["what"])]

    def until(self, ready: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> bool:
        """Waits; notes when it did not come."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                self.wrong.append(f"stuck: {what} did not come within {seconds:g} s")
                return False
            time.sleep(0.01)
        return True

    def entered(self, name: str) -> Callable[[], bool]:
        """Whether a state was entered, by its name's beginning."""
        return lambda: any(act["about"].partition("-> ")[2].startswith(name) for act in self.acts())

    def ask(self) -> LocalDriver:
        """Speaks to the deployment without being a driver: with the fence that the deployment has."""
        teller = LocalDriver(self.deployment.socket, 0)
        fence = int(teller.ask("hello")["fence"])
        teller.close()
        return LocalDriver(self.deployment.socket, fence)

    def look(self) -> Reading:
        """The counters now."""
        driver = self.ask()
        try:
            return driver.observe()
        finally:
            driver.close()

    def tally(self) -> Tally:
        """The clients' counts."""
        return read_tally(self.folder / "tally.json")

    def wants_weight(self, weight: int) -> None:
        """Holds the router to its weight; at 0 the candidate gets nothing any more while clients go on."""
        before = self.look()
        if before.weight != weight:
            self.wrong.append(f"expected weight {weight}, found {before.weight}")
        if weight == 0 and not any(self._quiet() for _ in range(SETTLING)):
            after = self.look()
            self.wrong.append(f"at weight 0 the candidate answered {after.live - before.live} live requests")

    def _quiet(self) -> bool:
        """Whether, for a moment, the champion answers and the candidate gets nothing.

        Who asked a candidate that hangs waits for the end of an attempt, and is counted then.
        """
        before = self.look()
        time.sleep(0.4)
        after = self.look()
        return after.live == before.live and after.champion.answered > before.champion.answered


@dataclass(frozen=True)
class Played:
    """What came of a scene."""

    name: str
    wrong: tuple[str, ...]
    sent: int
    lost: int
    """Client requests without a whole answer, those apart in which the candidate itself answered in a wrong shape."""
    broken: int
    first: str | None
    """The first failure."""
    seconds_to_zero: float | None
    real: bool
    """Sent to MLServer with a real model."""
    end: str
    excused: bool
    """The champion or the router itself was killed: nothing is left that could answer."""


@contextmanager
def playing(folder: Path, kind: Kind) -> Iterator[Scene]:
    """Deployment and clients; both are gone afterwards."""
    folder.mkdir(parents=True)
    deployment = _start(folder, kind)
    scene = Scene(folder, kind, deployment, _send(folder, kind, deployment))
    try:
        scene.until((folder / "tally.json").exists, "the clients' first counts")
        yield scene
    finally:
        for driver in scene.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.communicate()
        scene.replay.terminate()
        scene.replay.wait(30)
        launch.end(deployment, LocalDriver(deployment.socket, LAST))
        deadline = time.monotonic() + GONE_SECONDS
        while (
            left := [p for p in (deployment.pid, *deployment.pids.values()) if runs(p)]
        ) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left or deployment.socket.parent.exists():
            scene.wrong.append(f"left behind: processes {left}, folder {deployment.socket.parent.exists()}")


def _start(folder: Path, kind: Kind) -> launch.Running:
    if not kind.fast:
        return launch.attach(folder, kind.spec, lambda: None)
    (folder / launch.SPEC).write_text(json.dumps(kind.spec.to_json()))
    with (folder / launch.LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.live.site", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=dying_with_us(signal.SIGTERM),
        )
    deadline = time.monotonic() + WAIT_SECONDS
    while (about := launch._about(folder)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RolloutError(f"site: expected to start, found {(folder / launch.LOG).read_text()[-500:]}")
        time.sleep(0.02)
    return launch._read(about, process)


def _send(folder: Path, kind: Kind, deployment: launch.Running) -> "subprocess.Popen[bytes]":
    given = {
        "url": deployment.url,
        "rows": kind.rows,
        "classes": 10,
        "rate": kind.rate,
        "clients": kind.clients,
        "warm": 20,
    }
    share = 0.1 if not kind.fast else 0.02
    more = {"tally": folder / "tally.json", "probes": deployment.probes}
    words = [f"--{name}={value}" for name, value in {**given, **more}.items()]
    with (folder / "replay.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "holdfast", "replay", *words, f"--probe-share={share}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=dying_with_us(signal.SIGTERM),
        )


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal; a process that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
