"""Starts a site as a process of its own, or finds the one that an earlier driver started; light."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.artifacts.folder import replace_file
from holdfast.errors import RefusedError, RolloutError
from holdfast.processes import runs
from holdfast.serving.rollout.local.driver import LocalDriver
from holdfast.steps import SERVERS
from holdfast.waiting import poll
from holdfast.warm import children
from holdfast.warm.children import Process

SPEC, ABOUT, LOG = "site-spec.json", "site.json", "site.log"
START_SECONDS = 300.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_TAIL_BYTES = 2000


@dataclass(frozen=True)
class Running:
    """A site that answers."""

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


def attach(state: Path, spec: Mapping[str, object], check: Callable[[], None]) -> Running:
    """The site of `state`: the one that runs when it serves just this, otherwise a new one.

    Args:
        state: the rollout's folder.
        spec: as `holdfast.serving.rollout.local.deployment.Spec.to_json`.
        check: called while waiting; may raise.

    Raises:
        RefusedError: a server refused its model.
        RolloutError: one of the servers did not start.
    """
    found = _running(state, spec)
    return found if found is not None else _start(state, spec, check)


def find(state: Path) -> Running | None:
    """The site of `state` that answers, whatever it serves."""
    try:
        about = json.loads((state / ABOUT).read_bytes())
        return _read(about) if _answers(Path(about["socket"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end(running: Running, driver: LocalDriver) -> None:
    """Ends the site and returns when it is gone."""
    with contextlib.suppress(RolloutError):  # it is gone, or another driver's by now
        driver.ask("end")
    driver.close()
    poll(running.gone, bool, STOP_SECONDS, _POLL_SECONDS)


def _running(state: Path, spec: Mapping[str, object]) -> Running | None:
    try:
        same = json.loads((state / SPEC).read_bytes()) == json.loads(json.dumps(spec))
        about = json.loads((state / ABOUT).read_bytes())
    except (OSError, ValueError, KeyError):
        return None
    if not same or not _answers(Path(about["socket"])):
        return None
    return _read(about)


def _answers(path: Path) -> bool:
    asking = LocalDriver(path, 0)
    try:
        asking.ask("hello")
    except RolloutError:
        return False
    finally:
        asking.close()
    return True


def _start(state: Path, spec: Mapping[str, object], check: Callable[[], None]) -> Running:
    (state / ABOUT).unlink(missing_ok=True)
    replace_file(state / SPEC, json.dumps(spec).encode())
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
                raise RolloutError(f"site: expected to start, found exit code {process.returncode}: {_tail(state)}")
            if time.monotonic() > deadline:
                raise RolloutError(f"site: expected to be ready within {START_SECONDS:g} s, found: {_tail(state)}")
            time.sleep(_POLL_SECONDS)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _about(state: Path) -> Mapping[str, Any] | None:
    """What the site says of itself once it is ready."""
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


def _tail(state: Path) -> str:
    log = state / LOG
    return log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip() if log.exists() else ""
