"""Starts a local deployment as a process of its own, or finds the one that an earlier driver started; light."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import replace_file
from holdfast.errors import FencedError, RefusedError, RolloutError
from holdfast.processes import Process, runs, tail
from holdfast.serving.predictor.settings import Served
from holdfast.serving.rollout.contract.arms import CANDIDATE, STABLE
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.steps import SERVERS
from holdfast.waiting import poll
from holdfast.warm import children

SPEC, ABOUT, LOG = "deployment-spec.json", "deployment.json", "deployment.log"
START_SECONDS = 300.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Spec:
    """What a deployment serves and how long it trusts a driver that is silent."""

    stable: Served
    candidate: Served
    slow_ms: float
    ttl_seconds: float = 3.0
    """A weight or a mirror that was not renewed for so long is taken back."""
    linger_seconds: float = 15.0
    """A deployment that no driver spoke to for so long ends."""
    max_body_bytes: int | None = None
    """Largest request of a client; None: that of `holdfast.serving.predictor.settings.largest_body`."""
    arm_header_from: tuple[str, ...] = ()
    """Addresses (CIDR) of clients who may choose their arm."""

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        arms = {arm: getattr(self, arm).as_json() for arm in (STABLE, CANDIDATE)}
        return {**asdict(self), **arms, "arm_header_from": list(self.arm_header_from)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Spec":
        """From `to_json`."""
        arms = {arm: Served.from_json(values[arm]) for arm in (STABLE, CANDIDATE)}
        return cls(**{**values, **arms, "arm_header_from": tuple(values["arm_header_from"])})


@dataclass(frozen=True)
class Running:
    """A deployment that answers."""

    socket: Path
    url: str
    probes: Path
    """The unix socket of probes."""
    pid: int
    pids: Mapping[str, int]
    process: Process | None = None
    """When this process started it."""

    @property
    def found(self) -> bool:
        """It was running already."""
        return self.process is None

    def gone(self) -> bool:
        """Whether its process has ended; one that is ours is waited for, so that nothing is left of it."""
        return self.process.poll() is not None if self.process is not None else not runs(self.pid)


def attach(state: Path, spec: Spec, check: Callable[[], None]) -> Running:
    """The deployment of `state`: the one that runs when it serves just this, otherwise a new one.

    Args:
        state: the rollout's folder.
        spec: what is to be served.
        check: called while waiting; may raise.

    Raises:
        RefusedError: a server refused its model.
        RolloutError: one of the servers did not start.
    """
    found = _running(state, spec)
    return found if found is not None else _start(state, spec, check)


def find(state: Path) -> Running | None:
    """The deployment of `state` that answers, no matter what it serves."""
    try:
        about = json.loads((state / ABOUT).read_bytes())
        return _read(about) if _answers(Path(about["socket"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end(running: Running, driver: LocalDriver) -> None:
    """Ends the deployment and returns when it is gone."""
    with contextlib.suppress(RolloutError, FencedError):  # it is gone, or another driver's by now
        driver.ask("end")
    driver.close()
    poll(running.gone, bool, STOP_SECONDS, _POLL_SECONDS)


def _running(state: Path, spec: Spec) -> Running | None:
    try:
        same = json.loads((state / SPEC).read_bytes()) == json.loads(json.dumps(spec.to_json()))
    except (OSError, ValueError):
        return None
    return find(state) if same else None


def _answers(path: Path) -> bool:
    asking = LocalDriver(path, 0)
    try:
        asking.ask("hello")
    except RolloutError:
        return False
    finally:
        asking.close()
    return True


def _start(state: Path, spec: Spec, check: Callable[[], None]) -> Running:
    (state / ABOUT).unlink(missing_ok=True)
    replace_file(state / SPEC, json.dumps(spec.to_json()).encode())
    with (state / LOG).open("ab") as log:
        process = children.start(
            "holdfast.serving.rollout.local",
            [str(state)],
            out=log.fileno(),
            told=None,
            forks=True,
            libraries=SERVERS,
        )
    deadline = time.monotonic() + START_SECONDS
    try:
        while True:
            about = _about(state)
            if about is not None:
                return _read(about, process)
            check()
            if process.poll() is not None:
                raise RolloutError(
                    f"local deployment: expected to start, found exit code {process.returncode}: {tail(state / LOG)}"
                )
            if time.monotonic() > deadline:
                raise RolloutError(
                    f"local deployment: expected to be ready within {START_SECONDS:g} s, found: {tail(state / LOG)}"
                )
            time.sleep(_POLL_SECONDS)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _about(state: Path) -> Mapping[str, Any] | None:
    """What the deployment wrote of itself once it is ready."""
    try:
        about: Mapping[str, Any] = json.loads((state / ABOUT).read_bytes())
    except OSError:
        return None
    if "error" in about:
        raise (RefusedError if about.get("code") == RefusedError.exit_code else RolloutError)(about["error"])
    return about


def _read(about: Mapping[str, Any], process: Process | None = None) -> Running:
    sockets = Path(about["socket"]), str(about["url"]), Path(about["probes"])
    return Running(*sockets, int(about["pid"]), dict(about["pids"]), process)
