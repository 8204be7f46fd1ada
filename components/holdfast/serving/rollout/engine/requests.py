"""What operators ask of a rollout that runs: files in its folder, signals, and the expiry of the gate's decision.

A request is one file, put there whole by rename. It is taken away when the next one is asked for, because by then the
rollout's journal shows it: a driver that dies in between must not take an abort with it. Signals ask for an abort.
"""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.artifacts.folder import replace_file
from holdfast.errors import RolloutError
from holdfast.processes import stopped_by
from holdfast.serving.rollout.engine.controller import Ask, OperatorRequest

FOLDER = "requests"
TOLD = "told to stop"
_MAX_BYTES = 4096
SKEW_SECONDS = 300.0
"""How far two clocks on the wall may differ."""


@dataclass
class Stop:
    """Set by SIGTERM or SIGINT; waiting for it is how this process sleeps."""

    event: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Returns after `seconds`, at once the first time after the signal came."""
        if self.event.is_set():
            time.sleep(min(seconds, 0.05))
        else:
            self.event.wait(seconds)

    def check(self, what: str) -> None:
        """Before the rollout has begun there is nothing to take back.

        Raises:
            RolloutError: the signal came.
        """
        if self.event.is_set():
            raise RolloutError(f"{what}: stopped by a signal before the rollout had begun")


@contextmanager
def told_to_stop() -> Iterator[Stop]:
    """Turns SIGTERM and SIGINT into an event inside; only the main thread can."""
    with stopped_by(signal.SIGTERM, signal.SIGINT) as event:
        yield Stop(event)


@dataclass
class OperatorRequests:
    """Everything that may be asked; called by the controller at every observation."""

    state: Path
    stop: Stop
    expires_at: float | None = None
    """Unix seconds after which the gate's decision does not hold any more."""
    stopped: bool = False
    """Whether a signal ended the rollout, which is no verdict: the next run begins again."""
    expired: bool = False
    given: Path | None = None
    """The file of the request that was given last."""

    def __call__(self) -> OperatorRequest | None:
        """The next request, each once; what a driver before this one was given and did not live to note comes again."""
        if self.given is not None:
            self.given.unlink(missing_ok=True)
            self.given = None
        if self.stop.event.is_set() and not self.stopped:
            self.stopped = True
            return OperatorRequest(Ask.ABORT, TOLD)
        if self.expires_at is not None and not self.expired and time.time() > self.expires_at + SKEW_SECONDS:
            self.expired = True
            return OperatorRequest(Ask.REFUSE, "the gate's decision has expired")
        found = _next(self.state / FOLDER)
        if found is None:
            return None
        self.given, request = found
        return request


def ask(state: Path, request: OperatorRequest) -> None:
    """Leaves a request for the controller of the rollout in `state`.

    Raises:
        RolloutError: there is no such rollout.
    """
    if not state.is_dir():
        raise RolloutError(f"{state}: cannot ask for anything: no rollout is under way here")
    folder = state / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    name = f"{time.time_ns():020d}.json"
    replace_file(folder / name, json.dumps({"ask": request.ask.name, "reason": request.reason}).encode())


def _next(folder: Path) -> tuple[Path, OperatorRequest] | None:
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            with path.open("rb") as stream:
                found = json.loads(stream.read(_MAX_BYTES))
            return path, OperatorRequest(Ask[found["ask"]], str(found["reason"])[:500])
        except (OSError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)  # not one of ours
    return None
